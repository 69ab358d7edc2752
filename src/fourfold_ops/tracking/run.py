"""One MLflow run: metrics, figures, files, parameters and data sets are written through it."""

import json
import time
from contextvars import ContextVar
from pathlib import Path, PurePosixPath
from typing import Any

from fourfold_ops.tracking.provenance import flat

FLUSH_SECONDS = 2.0  # a call to the tracking store costs about 10 ms: a training loop must not pay that at each step
FLUSH_METRICS = 500  # MLflow accepts at most 1,000 in one batch
PARAMETERS_PER_BATCH = 100  # limit of MLflow
DIGEST_LENGTH = 36  # limit of MLflow


class ActiveRun:
    """A handle on one MLflow run; without a client (no tracking) every method does nothing.

    Metrics are buffered. They reach the store with the first call after `FLUSH_SECONDS`, or with `flush`.
    """

    def __init__(self, client: Any = None, run_id: str = "") -> None:
        self.client = client
        self.run_id = run_id
        self._buffer: list[Any] = []
        self._flushed = time.monotonic()

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record named metrics, at a step of training or for the whole run."""
        if self.client is None:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._buffer += [Metric(metric_name(name), float(value), now, step or 0) for name, value in metrics.items()]
        if len(self._buffer) >= FLUSH_METRICS or time.monotonic() - self._flushed >= FLUSH_SECONDS:
            self.flush()

    def log_figure(self, figure: Any, name: str) -> None:
        """Store a matplotlib figure as the artifact `name`, e.g. `tokenizers/rgb.png`."""
        if self.client is not None:
            self.client.log_figure(self.run_id, figure, name)

    def log_file(self, path: Path, name: str) -> None:
        """Store a copy of a file as the artifact `name`, whose last component is the name of the file."""
        if self.client is not None:
            self.client.log_artifact(self.run_id, str(path), PurePosixPath(name).parent.as_posix())

    def log_json(self, value: dict[str, Any], name: str) -> None:
        """Store a JSON value as the artifact `name`."""
        if self.client is not None:
            self.client.log_dict(self.run_id, value, name)

    def log_parameters(self, parameters: dict[str, Any]) -> None:
        """Record every leaf under its dotted name, e.g. `pretraining.model.dim`, as JSON so that its type is kept."""
        if self.client is None:
            return
        from mlflow.entities import Param

        params = [Param(metric_name(key), json.dumps(value, default=str)) for key, value in flat(parameters).items()]
        for start in range(0, len(params), PARAMETERS_PER_BATCH):
            self.client.log_batch(self.run_id, params=params[start : start + PARAMETERS_PER_BATCH])

    def log_data(self, dataset_name: str, data: Any, entry: Any, context: str) -> bool:
        """Record a data set that has a digest (its own, or that of its catalog entry).

        Args:
            dataset_name: Name in the catalog.
            data: The loaded or saved value.
            entry: The catalog entry of the data set.
            context: "input" or "output".

        Returns:
            Whether the data set has a digest and was recorded.
        """
        source: Any = data if hasattr(data, "digest") else entry
        if self.client is None or not hasattr(source, "digest"):
            return False
        from mlflow.entities import Dataset, DatasetInput, InputTag

        path = json.dumps({"path": str(next(iter(entry._describe().values()), ""))})
        dataset = Dataset(dataset_name, str(source.digest())[:DIGEST_LENGTH], type(entry).__name__, path)
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])
        return True

    def set_tag(self, key: str, value: str) -> None:
        """Tag the run."""
        if self.client is not None:
            self.client.set_tag(self.run_id, key, value)

    def set_tags(self, tags: dict[str, Any]) -> None:
        """Tag the run with several values at once."""
        if self.client is not None:
            from mlflow.entities import RunTag

            self.client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def flush(self) -> None:
        """Send all buffered metrics to the store."""
        while self._buffer:
            self.client.log_batch(self.run_id, metrics=self._buffer[:FLUSH_METRICS])
            self._buffer = self._buffer[FLUSH_METRICS:]
        self._flushed = time.monotonic()


def metric_name(name: str) -> str:
    """Return `name` with the characters that MLflow refuses replaced: `rgb->depth` → `rgb_to_depth`, `R@1` → `R_1`."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name.replace("->", "_to_"))


# A context variable, not a global: Kedro calls the hooks of a node in the thread of that node, so with ThreadRunner each
# thread has the run of its stage. Kedro builds datasets and validators from the catalog: no argument could carry a run.
_active: ContextVar[ActiveRun | None] = ContextVar("active_run", default=None)


def active_run() -> ActiveRun:
    """Return the run of the stage that runs in this context; one that discards everything when there is none."""
    return _active.get() or ActiveRun()


def set_active_run(run: ActiveRun | None) -> None:
    """Make `run` the active one of this context; None: no run is active."""
    _active.set(run)
