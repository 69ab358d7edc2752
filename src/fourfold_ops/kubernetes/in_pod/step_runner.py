"""How a step's own process runs its nodes: in order, and only one of the processes of a step saves what they return."""

from typing import Any

from kedro.io import CatalogProtocol, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner

from fourfold_ops import handover


class StepRunner(SequentialRunner):
    """Runs nodes one after another.

    A process that does a part of the work, or trains beside rank 0, keeps what its nodes return to itself: parts leave their
    work in the node's folder, and the merge (the same nodes, whole) returns the result.
    """

    def __str__(self) -> str:
        return "StepRunner"

    def _run(self, pipeline: Pipeline, catalog: CatalogProtocol, hook_manager: Any = None, run_id: str | None = None) -> None:
        if not handover.writes_results():
            for name in pipeline.all_outputs():
                catalog[name] = MemoryDataset()
        super()._run(pipeline, catalog, hook_manager, run_id)
