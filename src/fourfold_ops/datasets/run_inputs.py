"""Inputs that the run itself provides, so that a node depends on no tracking server, cluster or clock."""

import json
import logging
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError
from pydantic import TypeAdapter

from fourfold_ops import handover
from fourfold_ops.digests import read_checked, write_recorded
from fourfold_ops.tracking.run import ActiveRun, active_run

logger = logging.getLogger(__name__)
TABLE = TypeAdapter(dict[str, dict[str, float]])  # seconds of each node, by stage


class MetricLogDataset(AbstractDataset[None, ActiveRun]):
    """The log of the stage that runs: an object with `log_metrics`, `log_figure` and `log_file`.

    Without tracking (a notebook, a test) the log discards what it receives.
    """

    _EPHEMERAL = True

    def __init__(self, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata

    def load(self) -> ActiveRun:
        """Return the MLflow run of the stage that runs."""
        return active_run()

    def save(self, data: None) -> None:
        """Raise DatasetError: a metric log is an input."""
        raise DatasetError("A metric log is an input only. Call its log_metrics in the node.")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {}


class WorkSplitDataset(AbstractDataset[None, tuple[int, int]]):
    """The share of the work that this process does, as (index, count).

    (0, 1) means all of it, unless a runner has split the step over several processes. A node with this input writes the
    results of its share to its folder. What the node returns is saved only by the run over all shares.
    """

    _EPHEMERAL = True

    def __init__(self, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata

    def load(self) -> tuple[int, int]:
        """Return the index of this process's share, and the number of shares."""
        return handover.work_split()

    def save(self, data: None) -> None:
        """Raise DatasetError: this dataset is an input only."""
        raise DatasetError("The runner decides the work split; this dataset is an input only.")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {}


class PlaceDataset(AbstractDataset[None, str | None]):
    """Where a node keeps large results: an address or a path, as the catalog has it; None if none is configured.

    A place is no parameter: results do not depend on it, so DVC and MLflow do not record it as if they did.
    """

    _EPHEMERAL = True

    def __init__(self, place: str | None = None, metadata: dict[str, Any] | None = None) -> None:
        """Create the data set; `place` is an address such as s3://bucket/prefix, an absolute path, or a word of the node."""
        self.metadata = metadata
        self._place = place

    def load(self) -> str | None:
        """Return the place."""
        return self._place

    def save(self, data: None) -> None:
        """Raise DatasetError: this dataset is an input only."""
        raise DatasetError("The catalog names the place; this dataset is an input only.")

    def _exists(self) -> bool:
        return True

    def _describe(self) -> dict[str, Any]:
        return {"place": self._place}


class StageSecondsDataset(AbstractDataset[None, dict[str, float]]):
    """Seconds of each stage: the sum over its nodes, each as last measured, including loading and saving.

    Times are not reproducible, so the file is no output of a stage and is not versioned. `TimingHook` writes it.
    """

    def __init__(self, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata
        self._path = Path(filepath)

    def load(self) -> dict[str, float]:
        """Return seconds by stage, rounded to tenths; empty before the first node has run."""
        return {stage: round(sum(nodes.values()), 1) for stage, nodes in sorted(self._read().items())}

    def record(self, stage: str, node: str, seconds: float) -> None:
        """Record the duration of a node in seconds."""
        table = self._read()
        table.setdefault(stage, {})[node] = round(seconds, 3)
        write_recorded(self._path, (json.dumps(table, indent=1, sort_keys=True) + "\n").encode())

    def save(self, data: None) -> None:
        """Raise DatasetError: the hook writes the file."""
        raise DatasetError(f"{self._path} is written by TimingHook while nodes run. No node may return it.")

    def _read(self) -> dict[str, dict[str, float]]:
        """Return seconds by stage and node; empty, with a warning, if the file was damaged: times can be lost."""
        if not self._path.is_file():
            return {}
        try:
            return TABLE.validate_json(read_checked(self._path))
        except (OSError, ValueError, DatasetError):
            logger.warning("%s is not the table of seconds that was written; it starts empty again.", self._path)
            return {}

    def _exists(self) -> bool:
        return True  # an empty table is a valid input

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}
