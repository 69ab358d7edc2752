"""Runs that torchrun starts: the first process runs all nodes, the others only the nodes tagged `distributed`.

    torchrun --nproc-per-node=8 --no-python kedro run --pipelines=pretraining

Saving and recording happen in the first process only. The other processes wait at each distributed node until the first one
reaches it, so the inputs of the node exist.
"""

import atexit
import os
from datetime import timedelta
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import AbstractDataset, CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from fourfold_ops import handover

DISTRIBUTED = "distributed"  # the tag
MAX_WAIT = timedelta(days=30)  # earlier stages may take long; if the first process fails, torchrun ends the others


def is_first() -> bool:
    """Return whether this process runs all nodes: it is alone, or rank 0."""
    return handover.rank() == 0


def world_size() -> int:
    """Return the number of processes that torchrun started; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def for_this_process(pipelines: dict[str, Pipeline]) -> dict[str, Pipeline]:
    """Return the registered pipelines as this process runs them: all nodes in the first, distributed nodes in the others."""
    if is_first():
        return pipelines
    distributed = {name: pipeline.only_nodes_with_tags(DISTRIBUTED) for name, pipeline in pipelines.items()}
    return {name: pipeline if pipeline.nodes else _empty_pipeline() for name, pipeline in distributed.items()}


class RanksHook:
    """Synchronizes the processes at distributed nodes, and keeps all but the first from saving."""

    def __init__(self) -> None:
        self._synchronized: set[str] = set()

    @hook_impl(trylast=True)
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Make the outputs of all nodes read-only in all processes but the first."""
        if not is_first():
            for name in sorted(pipeline.all_outputs() & set(catalog.keys())):
                catalog[name] = ReadOnlyDataset(catalog.get(name))

    @hook_impl(tryfirst=True)
    def before_dataset_loaded(self, node: Node) -> None:
        """Wait for all processes before the first input of a distributed node is read."""
        if world_size() > 1 and DISTRIBUTED in node.tags and node.name not in self._synchronized:
            self._synchronized.add(node.name)
            synchronize()


def synchronize() -> None:
    """Wait until every process calls this; connects the processes if necessary."""
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group(timeout=MAX_WAIT)
        atexit.register(lambda: dist.destroy_process_group() if dist.is_initialized() else None)
    dist.all_reduce(torch.zeros(1))


class ReadOnlyDataset(AbstractDataset[Any, Any]):
    """A data set that another process writes."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def load(self) -> Any:
        """Return the content of the data set."""
        return self._inner.load()

    def save(self, data: Any) -> None:
        """Do nothing."""

    def _exists(self) -> bool:
        return bool(self._inner.exists())

    def _describe(self) -> dict[str, Any]:
        return {"read_only": repr(self._inner)}


def _empty_pipeline() -> Pipeline:
    """Return a pipeline whose only node does nothing: Kedro refuses a pipeline without nodes."""
    return Pipeline([Node(lambda: None, None, "nothing", name="wait_for_the_first_process")])
