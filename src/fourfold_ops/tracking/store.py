"""Opens the MLflow store that `conf/*/tracking.yml` names."""

import contextlib
import os
from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext

from fourfold_ops.atomic import temporary_name
from fourfold_ops.errors import UserError

SQLITE = "sqlite:///"
PROBE_BYTES = 4_000_000  # more than an empty store needs


class TrackingStore:
    """An MLflow client with an experiment; `uri` is absolute."""

    def __init__(self, project_path: Path, uri: str, experiment: str, artifacts: str = "data/mlflow_artifacts") -> None:
        self.project_path = project_path
        self.uri = absolute_uri(os.environ.get("MLFLOW_TRACKING_URI") or uri, project_path)
        self.is_local = self.uri.startswith(SQLITE)
        self.client = self._connect()
        found = self.client.get_experiment_by_name(experiment)
        location = (project_path / artifacts).as_uri() if self.is_local else None
        self.experiment_id = found.experiment_id if found else self.client.create_experiment(experiment, location)

    @classmethod
    def from_context(cls, context: KedroContext) -> "TrackingStore":
        """Open the store that the project's configuration names."""
        return cls(context.project_path, **context.config_loader["tracking"])

    def _connect(self) -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        if self.is_local:
            check_writable(Path(self.uri.removeprefix(SQLITE)).parent)
        import mlflow

        mlflow.set_tracking_uri(self.uri)  # for calls of the mlflow module, e.g. to load a registered model
        mlflow.set_registry_uri(self.uri)
        return mlflow.MlflowClient(self.uri, registry_uri=self.uri)


def check_writable(folder: Path) -> None:
    """Raise UserError if nothing can be written there; MLflow would retry for minutes."""
    probe = temporary_name(folder / "probe")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(bytes(PROBE_BYTES))
        probe.unlink()
    except OSError as error:
        with contextlib.suppress(OSError):
            probe.unlink()
        raise UserError(f"Cannot write to {folder}: {error.strerror}.", "Free space or give write permission.") from error


def absolute_uri(uri: str, project_path: Path) -> str:
    """Return `uri` with the relative path of a sqlite file made absolute; others unchanged."""
    path = uri.removeprefix(SQLITE)
    return f"{SQLITE}{(project_path / path).as_posix()}" if uri.startswith(SQLITE) else uri
