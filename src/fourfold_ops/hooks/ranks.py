"""A run that torchrun started: the first process does everything, the others only help where a node wants them.

    torchrun --nproc-per-node=8 --no-python kedro run --pipelines=pretraining

Nodes tagged `distributed` run on every process; all others run on the first alone, and so does all saving and recording. The
other processes wait at each distributed node until the first has come there, so its inputs exist.
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
PATIENCE = timedelta(days=30)  # earlier stages may take long; when the first process fails, torchrun ends the others


def is_first() -> bool:
    """Tell whether this process does everything: it is alone, or rank 0."""
    return handover.rank() == 0


def world_size() -> int:
    """Return how many processes torchrun started, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def for_this_process(pipelines: dict[str, Pipeline]) -> dict[str, Pipeline]:
    """Return what this process runs of the registered pipelines: everything on the first, distributed nodes on others."""
    if is_first():
        return pipelines
    helping = {name: pipeline.only_nodes_with_tags(DISTRIBUTED) for name, pipeline in pipelines.items()}
    return {name: pipeline if pipeline.nodes else _nothing() for name, pipeline in helping.items()}


class RanksHook:
    """Brings the processes together at distributed nodes, and keeps all but the first from saving."""

    def __init__(self) -> None:
        self._met: set[str] = set()

    @hook_impl(trylast=True)
    def before_pipeline_run(self, pipeline: Pipeline, catalog: CatalogProtocol) -> None:
        """Let other processes read what the nodes save, and not write it."""
        if not is_first():
            for name in sorted(pipeline.all_outputs() & set(catalog.keys())):
                catalog[name] = ReadOnlyDataset(catalog.get(name))

    @hook_impl(tryfirst=True)
    def before_dataset_loaded(self, node: Node) -> None:
        """Wait for all processes before the first input of a distributed node is read."""
        if world_size() > 1 and DISTRIBUTED in node.tags and node.name not in self._met:
            self._met.add(node.name)
            meet()


def meet() -> None:
    """Return when every process has come here."""
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group(timeout=PATIENCE)
        atexit.register(lambda: dist.destroy_process_group() if dist.is_initialized() else None)
    dist.all_reduce(torch.zeros(1))


class ReadOnlyDataset(AbstractDataset[Any, Any]):
    """A data set of which another process is the writer."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def load(self) -> Any:
        """Return what the data set holds."""
        return self._inner.load()

    def save(self, data: Any) -> None:
        """Do nothing."""

    def _exists(self) -> bool:
        return bool(self._inner.exists())

    def _describe(self) -> dict[str, Any]:
        return {"read_only": repr(self._inner)}


def _nothing() -> Pipeline:
    """Return a pipeline that does nothing: Kedro refuses one without nodes."""
    return Pipeline([Node(lambda: None, None, "nothing", name="wait_for_the_first_process")])
