"""The run that is being recorded right now, for whoever wants to add figures to it."""

import time
from pathlib import Path, PurePosixPath
from typing import Any

FLUSH_SECONDS = 2.0  # a call to the tracking store costs about 10 ms: a training loop must not pay that each step
FLUSH_METRICS = 500  # MLflow takes at most 1,000 in one batch


class ActiveRun:
    """A handle on one MLflow run; without a client (no tracking) every method does nothing.

    Metrics are buffered, and reach the store at the latest with the first call after `FLUSH_SECONDS`, or with `flush`.
    """

    def __init__(self, client: Any = None, run_id: str = "") -> None:
        self.client = client
        self.run_id = run_id
        self._waiting: list[Any] = []
        self._flushed = time.monotonic()

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record named figures, at a step of training or for the whole."""
        if self.client is None:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._waiting += [Metric(metric_name(name), float(value), now, step or 0) for name, value in metrics.items()]
        if len(self._waiting) >= FLUSH_METRICS or time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def log_figure(self, figure: Any, name: str) -> None:
        """Keep a matplotlib figure as the artifact `name`, e.g. `tokenizers/rgb.png`."""
        if self.client is not None:
            self.client.log_figure(self.run_id, figure, name)

    def log_file(self, path: Path, name: str) -> None:
        """Keep a copy of a file as the artifact `name`; the last part of the name is the file's own."""
        if self.client is not None:
            self.client.log_artifact(self.run_id, str(path), PurePosixPath(name).parent.as_posix())

    def log_json(self, value: dict[str, Any], name: str) -> None:
        """Keep a JSON value as the artifact `name`."""
        if self.client is not None:
            self.client.log_dict(self.run_id, value, name)

    def set_tag(self, key: str, value: str) -> None:
        """Tag the run."""
        if self.client is not None:
            self.client.set_tag(self.run_id, key, value)

    def flush(self) -> None:
        """Send what is waiting."""
        while self._waiting:
            self.client.log_batch(self.run_id, metrics=self._waiting[:FLUSH_METRICS])
            self._waiting = self._waiting[FLUSH_METRICS:]
        self._flushed = time.monotonic()


def metric_name(name: str) -> str:
    """Return `name` with what MLflow does not allow replaced: `rgb->depth` becomes `rgb_to_depth`, `R@1` becomes `R_1`."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name.replace("->", "_to_"))


_active = ActiveRun()


def active_run() -> ActiveRun:
    """Return the run that is being recorded; one that does nothing when there is none."""
    return _active


def set_active_run(run: ActiveRun | None) -> None:
    """Make `run` the one that is being recorded."""
    global _active
    _active = run or ActiveRun()
