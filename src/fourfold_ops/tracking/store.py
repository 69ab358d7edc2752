"""Opens the MLflow store that `conf/*/tracking.yml` names."""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext

from fourfold_ops import handover
from fourfold_ops.errors import UserError
from fourfold_ops.tracking import offline
from fourfold_ops.tracking.local_store import damaged, prepare, relocate
from fourfold_ops.tracking.patience import PatientClient, limit_requests
from fourfold_ops.tracking.server import check_answers

logger = logging.getLogger(__name__)
SQLITE = "sqlite:///"
VARIABLE = "MLFLOW_TRACKING_URI"
PROBE_BYTES = 4_000_000  # more than an empty store needs


class TrackingStore:
    """An MLflow client with an experiment; `uri` is absolute.

    With `--offline-tracking` it is the store on disk that stands for a server; see `offline`.
    """

    def __init__(self, project_path: Path, uri: str, experiment: str, artifacts: str = "data/mlflow_artifacts") -> None:
        self.project_path, self.experiment = project_path, experiment
        self.uri = absolute_uri(os.environ.get(VARIABLE) or uri, project_path)
        if offline.is_requested() and not self.uri.startswith(SQLITE):
            self.uri, artifacts = absolute_uri(offline.URI, project_path), offline.ARTIFACTS
            logger.warning("The run is recorded in %s. To send it to the server: kedro tracking sync", offline.FOLDER)
        self.is_local = self.uri.startswith(SQLITE)
        self.client = self._connect(artifacts)
        self.experiment_id = self._experiment(experiment, (project_path / artifacts).as_uri() if self.is_local else None)

    @classmethod
    def from_context(cls, context: KedroContext) -> "TrackingStore":
        """Open the store that the project's configuration names."""
        return cls(context.project_path, **context.config_loader["tracking"])

    def _connect(self, artifacts: str) -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        if self.is_local:
            database = Path(self.uri.removeprefix(SQLITE))
            check_writable(database.parent)
            prepare(database, self.project_path / artifacts)
            if not handover.received():  # the project of a step lies at another path of its pod, and has not moved
                relocate(database, self.project_path / artifacts, artifacts)
        else:
            check_answers(self.uri, VARIABLE if os.environ.get(VARIABLE) else "conf/*/tracking.yml")
            limit_requests()
        import mlflow

        _log_like_others()
        mlflow.set_tracking_uri(self.uri)  # for calls of the mlflow module, e.g. to load a registered model
        mlflow.set_registry_uri(self.uri)
        client = mlflow.MlflowClient(self.uri, registry_uri=self.uri)
        return client if self.is_local else PatientClient(client)

    def _experiment(self, name: str, location: str | None) -> str:
        """Return the id of the experiment, created if it is absent.

        Raises:
            UserError: The experiment was deleted, or the store cannot be read.
        """
        from mlflow.exceptions import MlflowException

        try:
            found = self.client.get_experiment_by_name(name)
            if found is None:
                found = self._created_experiment(name, location)
        except MlflowException as error:
            if self.is_local:
                raise damaged(Path(self.uri.removeprefix(SQLITE)), error) from error
            raise UserError(
                f"The MLflow server {self.uri} refuses the experiment {name!r}: {error.message.splitlines()[0]}",
                "Check its address, your permissions and MLFLOW_TRACKING_TOKEN or MLFLOW_TRACKING_USERNAME.",
            ) from error
        if found.lifecycle_stage == "active":
            return str(found.experiment_id)
        command = f"MLFLOW_TRACKING_URI={self.uri} mlflow experiments restore --experiment-id {found.experiment_id}"
        raise UserError(
            f"The MLflow experiment {name!r} was deleted; no run can be recorded in it.",
            f"Restore it (`{command}`), or name another one in conf/*/tracking.yml.",
        )

    def _created_experiment(self, name: str, location: str | None) -> Any:
        """Create the experiment and return it; another process may have created it at the same moment."""
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_experiment(name, location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return self.client.get_experiment_by_name(name)


def check_writable(folder: Path) -> None:
    """Raise UserError if nothing can be written there; MLflow would retry for minutes."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:  # has no name, so a killed process leaves nothing
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
    except OSError as error:
        raise UserError(f"Cannot write to {folder}: {error.strerror}.", "Free space or give write permission.") from error


def _log_like_others() -> None:
    """Send what MLflow logs through the handlers of the project; errors of its database are raised anyway, so not logged."""
    for logger, level in (("mlflow", logging.WARNING), ("mlflow.store.db.utils", logging.CRITICAL)):
        logging.getLogger(logger).handlers.clear()
        logging.getLogger(logger).setLevel(level)
        logging.getLogger(logger).propagate = True


def absolute_uri(uri: str, project_path: Path) -> str:
    """Return `uri` with the relative path of a sqlite file made absolute; others unchanged."""
    path = uri.removeprefix(SQLITE)
    return f"{SQLITE}{(project_path / path).as_posix()}" if uri.startswith(SQLITE) else uri
