"""The Kedro runner of a step's process."""

from typing import Any

from kedro.io import CatalogProtocol, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner

from fourfold_ops import handover


class StepRunner(SequentialRunner):
    """Runs the nodes of a step one after another; only one process of a step saves what they return.

    Ranks other than 0 and pods that work on one part of a split step keep the returned values in memory. Parts leave
    their work in the folder of the node, and the merge Job, which runs the same nodes on the whole, saves the result.
    """

    def __str__(self) -> str:
        return "StepRunner"

    def _run(self, pipeline: Pipeline, catalog: CatalogProtocol, hook_manager: Any = None, run_id: str | None = None) -> None:
        if not handover.writes_results():
            for name in pipeline.all_outputs():
                catalog[name] = MemoryDataset()
        super()._run(pipeline, catalog, hook_manager, run_id)
