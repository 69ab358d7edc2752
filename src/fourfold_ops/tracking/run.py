"""One MLflow run: metrics, figures, files, parameters and data sets are written through it."""

import json
import logging
import tempfile
import time
from contextvars import ContextVar
from pathlib import Path, PurePosixPath
from typing import Any

from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential

from fourfold_ops.secrets import redact, redacted
from fourfold_ops.tracking.patience import MAX_PAUSE, is_away
from fourfold_ops.tracking.provenance import flat

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0  # a call to the tracking store costs about 10 ms: a training loop must not pay that at each step
FLUSH_METRICS = 500  # MLflow accepts at most 1,000 in one batch
PARAMETERS_PER_BATCH = 100  # limit of MLflow
DIGEST_LENGTH = 36  # limit of MLflow
TAG_LENGTH = 5000  # limit of MLflow
REGISTERED_MODEL = "registered_model"  # tag of a run: the address of the model version that it registered


class ActiveRun:
    """A handle on one MLflow run; without a client (no tracking) every method does nothing.

    Metrics are buffered. They reach the store with the first call after `FLUSH_SECONDS`, or with `flush`.
    """

    def __init__(self, client: Any = None, run_id: str = "") -> None:
        self.client = client
        self.run_id = run_id
        self._buffer: list[Any] = []
        self._flushed = time.monotonic()
        self._retry_at = 0.0  # when to try again after a failure; 0: the last attempt succeeded

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Record named metrics, at a step of training or for the whole run."""
        if self.client is None:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._buffer += [Metric(metric_name(name), float(value), now, step or 0) for name, value in metrics.items()]
        is_due = len(self._buffer) >= FLUSH_METRICS or time.monotonic() - self._flushed >= FLUSH_SECONDS
        if is_due and time.monotonic() >= self._retry_at:
            self.try_to_flush()

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
            self.client.log_dict(self.run_id, redacted(value), name)

    def log_bytes(self, content: bytes, name: str) -> None:
        """Store bytes as the artifact `name`."""
        if self.client is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / PurePosixPath(name).name
            path.write_bytes(content)
            self.log_file(path, name)

    def log_parameters(self, parameters: dict[str, Any]) -> None:
        """Record every leaf under its dotted name, e.g. `pretraining.model.dim`, as JSON so that its type is kept."""
        if self.client is None:
            return
        from mlflow.entities import Param

        leaves = {key: redacted(value, key) for key, value in flat(parameters).items()}
        params = [Param(metric_name(key), json.dumps(value, default=str)) for key, value in leaves.items()]
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
        self._log_input(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
        return True

    @retry(
        retry=retry_if_exception(lambda error: _is_lost_race(error)),
        stop=stop_after_attempt(5),
        wait=wait_exponential(0.05),
        reraise=True,
    )
    def _log_input(self, data: Any) -> None:
        self.client.log_inputs(self.run_id, [data])

    def set_tag(self, key: str, value: str) -> None:
        """Tag the run."""
        if self.client is not None:
            self.client.set_tag(self.run_id, key, redact(value)[:TAG_LENGTH])

    def set_tags(self, tags: dict[str, Any]) -> None:
        """Tag the run with several values at once."""
        if self.client is not None:
            from mlflow.entities import RunTag

            given = [RunTag(key, redact(str(value))[:TAG_LENGTH]) for key, value in tags.items()]
            for start in range(0, len(given), PARAMETERS_PER_BATCH):
                self.client.log_batch(self.run_id, tags=given[start : start + PARAMETERS_PER_BATCH])

    def tags(self) -> dict[str, str]:
        """Return the tags of the run in the store."""
        found: dict[str, str] = {} if self.client is None else self.client.get_run(self.run_id).data.tags
        return found

    def remove_tag(self, key: str) -> None:
        """Remove a tag that the run has."""
        if self.client is not None:
            self.client.delete_tag(self.run_id, key)

    def flush(self) -> None:
        """Send all buffered metrics to the store; wait for a server that is away."""
        self._send(self.client)

    def try_to_flush(self) -> None:
        """Send the buffered metrics, or keep them while the server is away: a training does not stand still for it."""
        try:
            self._send(getattr(self.client, "impatient", self.client))
        except Exception as error:
            if not is_away(error):
                raise
            if not self._retry_at:
                logger.warning("The MLflow server does not answer. Metrics are kept in memory until it does.")
            self._retry_at = time.monotonic() + MAX_PAUSE

    def _send(self, client: Any) -> None:
        while self._buffer:
            client.log_batch(self.run_id, metrics=self._buffer[:FLUSH_METRICS])
            self._buffer = self._buffer[FLUSH_METRICS:]
        self._flushed, self._retry_at = time.monotonic(), 0.0


def metric_name(name: str) -> str:
    """Return `name` with the characters that MLflow refuses replaced: `rgb->depth` → `rgb_to_depth`, `R@1` → `R_1`."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name.replace("->", "_to_"))


def _is_lost_race(error: BaseException) -> bool:
    """Return whether another process recorded the same data set between MLflow's query and its insert.

    MLflow neither repeats the query nor has an error for this: the database's is in the message, also from a server.
    """
    return "IntegrityError" in str(error)


# A context variable, not a global: Kedro calls the hooks of a node in the thread of that node, so with ThreadRunner each
# thread has the run of its stage. Kedro builds datasets and validators from the catalog: no argument could carry a run.
_active: ContextVar[ActiveRun | None] = ContextVar("active_run", default=None)


def active_run() -> ActiveRun:
    """Return the run of the stage that runs in this context; one that discards everything when there is none."""
    return _active.get() or ActiveRun()


def set_active_run(run: ActiveRun | None) -> None:
    """Make `run` the active one of this context; None: no run is active."""
    _active.set(run)
