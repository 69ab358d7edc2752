"""Copies a version into the registry of another MLflow server, with its origin and its evidence."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fourfold_ops.errors import UserError
from fourfold_ops.registry.evidence import ARTIFACT
from fourfold_ops.registry.versions import DIGEST_TAG, ModelVersions, Version
from fourfold_ops.tracking import names
from fourfold_ops.tracking.server import check_answers

COPIED_FROM = "copied.from"  # tag of a version and its run: address and version of the original
MODEL_FOLDER = "model"  # of the run's artifacts
SQLITE = "sqlite:///"


def open_registry(uri: str, name: str) -> ModelVersions:
    """Return the versions of a model in another registry; the model is created there if it is absent.

    Raises:
        UserError: Nothing answers at the address, or the file does not exist.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    check_answers(uri, "--to")
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file():
        raise UserError(f"There is no registry {uri}.", "Give the address of an MLflow server, or sqlite:///<existing file>.")
    client = MlflowClient(uri, registry_uri=uri)
    with contextlib.suppress(MlflowException):  # it exists; another error is that of the next call
        client.create_registered_model(name)
    return ModelVersions(client, name)


def copy_version(source: ModelVersions, version: Version, target: ModelVersions) -> str:
    """Copy files, tags and evidence of a version; equal content is one version there, too.

    Args:
        source, version: what is copied.
        target: where to.

    Returns:
        The number of the version in the target.
    """
    origin = {COPIED_FROM: f"{source.client.tracking_uri} models:/{source.name}/{version.number}"}
    digest = version.tags.get(DIGEST_TAG, "")
    facts = {key: value for key, value in version.facts.items() if not key.startswith("mlflow.") and len(value) <= 5000}
    run_id = target.client.create_run(_experiment(target), tags=facts | origin, run_name=f"copy of {version.title}").info.run_id
    if (evidence := source.evidence(version)) is not None:
        target.client.log_text(run_id, evidence.model_dump_json(), ARTIFACT)
    number = _known(target, digest) if digest else ""
    if not number:
        with _files(source, version) as folder:
            target.client.log_artifacts(run_id, str(folder), MODEL_FOLDER)
        created = target.client.create_model_version(
            target.name, f"runs:/{run_id}/{MODEL_FOLDER}", run_id, tags={**origin, DIGEST_TAG: digest}
        )
        number = str(created.version)
    for tag in (names.MODEL_RUN, names.MODEL_PARENT_RUN):
        target.client.set_model_version_tag(target.name, number, tag, run_id)
    target.client.set_terminated(run_id, "FINISHED")
    return number


def _known(target: ModelVersions, digest: str) -> str:
    return next((version.number for version in target.all() if version.tags.get(DIGEST_TAG) == digest), "")


def _experiment(target: ModelVersions) -> str:
    """Return the experiment for copies of this model, created if it is absent."""
    name = f"{target.name} copies"
    found = target.client.get_experiment_by_name(name)
    return str(found.experiment_id if found else target.client.create_experiment(name, _location(target.client)))


def _location(client: Any) -> str | None:
    """Return the folder of artifacts beside the file of a local registry; None: the server decides."""
    uri = client.tracking_uri
    if not uri.startswith(SQLITE):
        return None
    return (Path(uri.removeprefix(SQLITE)).resolve().parent / "mlflow_artifacts").as_uri()


@contextlib.contextmanager
def _files(source: ModelVersions, version: Version) -> Iterator[Path]:
    """Yield a folder with the files of a version."""
    from mlflow.artifacts import download_artifacts

    uri = source.client.get_model_version_download_uri(source.name, version.number)
    with tempfile.TemporaryDirectory() as folder:
        yield Path(download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=source.client.tracking_uri))
