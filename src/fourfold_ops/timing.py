"""How long each stage took, for the report: measured around its nodes, kept between the processes that run them."""

import json
import time
from pathlib import Path
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import AbstractDataset, CatalogProtocol, DatasetError
from kedro.pipeline.node import Node

from fourfold_ops import handover
from fourfold_ops.atomic import write_whole
from fourfold_ops.stages import stage_of


class StageSecondsDataset(AbstractDataset[None, dict[str, float]]):
    """Seconds of each stage: the sum over its nodes, each as it last ran, with loading and saving.

    Nothing reproducible can be said of time, so the file is no output of a stage and not under version control.
    """

    def __init__(self, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata
        self._path = Path(filepath)

    def load(self) -> dict[str, float]:
        """Return stage → seconds, rounded to tenths; empty when nothing has run yet."""
        return {stage: round(sum(nodes.values()), 1) for stage, nodes in sorted(self._read().items())}

    def record(self, stage: str, node: str, seconds: float) -> None:
        """Note how long a node took."""
        table = self._read()
        table.setdefault(stage, {})[node] = round(seconds, 3)
        write_whole(self._path, (json.dumps(table, indent=1, sort_keys=True) + "\n").encode())

    def save(self, data: None) -> None:
        """Refuse: the hook writes it."""
        raise DatasetError(f"{self._path} is written by TimingHook while nodes run; no node returns it.")

    def _read(self) -> dict[str, dict[str, float]]:
        return json.loads(self._path.read_text(encoding="utf-8")) if self._path.is_file() else {}

    def _exists(self) -> bool:
        return True  # an empty table is an answer

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}


class TimingHook:
    """Records every node's seconds in the catalog's `StageSecondsDataset`, if there is one."""

    def __init__(self) -> None:
        self._table: StageSecondsDataset | None = None
        self._began = time.monotonic()

    @hook_impl
    def after_catalog_created(self, catalog: CatalogProtocol) -> None:
        """Find where to record."""
        entries = (catalog.get(name) for name in catalog.keys())  # noqa: SIM118, a catalog is no mapping
        self._table = next((entry for entry in entries if isinstance(entry, StageSecondsDataset)), None)
        self._began = time.monotonic()

    @hook_impl
    def after_node_run(self, node: Node) -> None:
        """Record what passed since the node before: its loading, its work, and the saving of the one before."""
        now = time.monotonic()
        if self._table is not None and handover.writes_results():
            self._table.record(stage_of(node), node.name, now - self._began)
        self._began = now
