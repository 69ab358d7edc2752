"""Measures the duration of every node, for the report."""

import time

from kedro.framework.hooks import hook_impl
from kedro.io import CatalogProtocol
from kedro.pipeline.node import Node

from fourfold_ops import handover
from fourfold_ops.datasets import StageSecondsDataset
from fourfold_ops.stages import stage_of


class TimingHook:
    """Records the seconds of every node in the `StageSecondsDataset` of the catalog, if there is one."""

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
