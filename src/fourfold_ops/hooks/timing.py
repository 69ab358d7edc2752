"""Measures the duration of every node. Times are not reproducible, so they stay out of the outputs of stages."""

import logging
import time

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from fourfold_ops import handover
from fourfold_ops.datasets import StageSecondsDataset
from fourfold_ops.stages import stage_of

logger = logging.getLogger(__name__)


class TimingHook:
    """Records the seconds of every node in the `StageSecondsDataset` of the catalog, if there is one; logs those of stages."""

    def __init__(self) -> None:
        self._table: StageSecondsDataset | None = None
        self._last = time.monotonic()

    @hook_impl
    def after_catalog_created(self, catalog: CatalogProtocol) -> None:
        """Find the dataset and start the clock."""
        entries = (catalog.get(name) for name in catalog.keys())  # noqa: SIM118, a catalog is no mapping
        self._table = next((entry for entry in entries if isinstance(entry, StageSecondsDataset)), None)
        self._last = time.monotonic()

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Record the time since the previous node: loading and work of this one, and saving of the previous one."""
        now = time.monotonic()
        if self._table is not None and handover.writes_results():
            self._table.record(stage_of(node), node.name, now - self._last)
        self._last = now

    @hook_impl
    def after_pipeline_run(self, pipeline: Pipeline) -> None:
        """Log the seconds of each stage of this run; a step on another machine leaves that to the driver."""
        if self._table is None or handover.received():
            return
        ran, seconds = {stage_of(node) for node in pipeline.nodes}, self._table.load()
        if texts := [f"{stage} {value:.0f}" for stage, value in seconds.items() if stage in ran]:
            logger.info("Seconds by stage: %s", ", ".join(texts))
