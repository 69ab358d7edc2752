"""Sends runs that were recorded without the tracking server: everything of them, once, in the order in which they ran.

Each copy has the id of its original in the tag `offline.run_id`, and so have models: whatever interrupts the sending, the next
one continues with the copies that exist. An original is marked only when all of its copy is on the server.
"""

import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fourfold_ops.atomic import locked
from fourfold_ops.errors import one_line
from fourfold_ops.registry.confirmation import confirm
from fourfold_ops.registry.versions import CANDIDATE, DIGEST_TAG
from fourfold_ops.secrets import redact
from fourfold_ops.tracking import names, offline
from fourfold_ops.tracking.lineage import describe_version
from fourfold_ops.tracking.processes import PROCESS_TAG, end_stale_runs
from fourfold_ops.tracking.run import FLUSH_METRICS, PARAMETERS_PER_BATCH, REGISTERED_MODEL
from fourfold_ops.tracking.run_tree import PARENT_TAG
from fourfold_ops.tracking.store import TrackingStore, absolute_uri

logger = logging.getLogger(__name__)
ORIGIN = "offline.run_id"  # tag of a copy
MODEL_ORIGIN = "offline.model_id"  # tag of the copy of a logged model
SENT = "offline.sent_as"  # tag of an original parent run: the id of its copy, once that is complete
MAX_RUNS = 1000  # of one request
OWN_TAGS = (PARENT_TAG, PROCESS_TAG, REGISTERED_MODEL)  # tags whose values belong to the store


def has_offline_runs(project_path: Path) -> bool:
    """Return whether anything was recorded without the server here; quick to find out."""
    return (project_path / offline.FOLDER / "mlflow.db").is_file()


def send_before_run(store: TrackingStore) -> None:
    """Send what was recorded offline to the store of a run that starts; a failure does not concern that run."""
    try:
        send_offline_runs(store)
    except Exception as error:
        logger.warning("Runs that were recorded offline were not sent: %s. Later: kedro tracking sync", redact(one_line(error)))
        logger.debug("Sending failed.", exc_info=True)


def send_offline_runs(store: TrackingStore) -> list[str]:
    """Send all runs that have ended and are not sent yet to the store of a server; return the ids of the parents there."""
    root = store.project_path
    if store.is_local or not has_offline_runs(root):
        return []
    from mlflow import MlflowClient

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    uri = absolute_uri(offline.URI, root)
    source = MlflowClient(uri, registry_uri=uri)
    found = source.get_experiment_by_name(store.experiment)
    if found is None:
        return []
    with locked(root / offline.FOLDER):  # of two processes, the second finds nothing left to send
        end_stale_runs(source, found.experiment_id, local_store=True)
        runs = source.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"], max_results=MAX_RUNS)
        parents = [run for run in runs if PARENT_TAG not in run.data.tags]
        waiting = [run for run in parents if SENT not in run.data.tags and run.info.status != "RUNNING"]
        sender = _Sender(source, store)
        return [sender.send(run, [one for one in runs if one.data.tags.get(PARENT_TAG) == run.info.run_id]) for run in waiting]


class _Sender:
    """Copies runs from one MLflow store into another."""

    def __init__(self, source: Any, store: TrackingStore) -> None:
        self._source, self._target, self._experiment = source, store.client, store.experiment_id

    def send(self, parent: Any, stages: list[Any]) -> str:
        """Send a parent run with its stages and what they registered; return the id of the copy."""
        copy = self._send_run(parent, {})
        for stage in stages:
            self._send_run(stage, {PARENT_TAG: copy})
        self._confirm(parent, copy)
        self._source.set_tag(parent.info.run_id, SENT, copy)
        logger.info("Sent run %s, which was recorded offline, as %s.", parent.info.run_id, copy)
        return copy

    def _send_run(self, run: Any, tags: Mapping[str, str]) -> str:
        client, run_id = self._target, self._copy_of(run, tags)
        given = {key: value for key, value in run.data.tags.items() if key not in OWN_TAGS}
        self._batches(run_id, "tags", _tags(given), PARAMETERS_PER_BATCH)
        self._batches(run_id, "params", _params(run.data.params), PARAMETERS_PER_BATCH)
        self._send_metrics(run, run_id)
        if run.inputs.dataset_inputs and not client.get_run(run_id).inputs.dataset_inputs:
            client.log_inputs(run_id, run.inputs.dataset_inputs)
        with tempfile.TemporaryDirectory() as folder:
            if self._source.list_artifacts(run.info.run_id):
                self._source.download_artifacts(run.info.run_id, "", folder)
                client.log_artifacts(run_id, folder)
        if address := run.data.tags.get(REGISTERED_MODEL):
            client.set_tag(run_id, REGISTERED_MODEL, self._send_version(address, run, run_id, tags[PARENT_TAG]))
        client.set_terminated(run_id, run.info.status, run.info.end_time)
        return run_id

    def _copy_of(self, run: Any, tags: Mapping[str, str]) -> str:
        """Return the id of the copy of a run, which is created if it is absent."""
        wanted = f"tags.`{ORIGIN}` = '{run.info.run_id}'"
        for copy in self._target.search_runs([self._experiment], wanted, max_results=1):
            return str(copy.info.run_id)
        own = {**tags, ORIGIN: run.info.run_id, "mlflow.user": run.data.tags.get("mlflow.user", "")}
        copy = self._target.create_run(self._experiment, run.info.start_time, own, run.info.run_name)
        return str(copy.info.run_id)

    def _send_metrics(self, run: Any, run_id: str) -> None:
        """Send every value with its step and time; a value that is there already changes nothing."""
        histories = (self._source.get_metric_history(run.info.run_id, key) for key in sorted(run.data.metrics))
        self._batches(run_id, "metrics", [metric for history in histories for metric in history], FLUSH_METRICS)

    def _batches(self, run_id: str, kind: str, values: list[Any], size: int) -> None:
        for start in range(0, len(values), size):
            self._target.log_batch(run_id, **{kind: values[start : start + size]})

    # --- models ---

    def _send_version(self, address: str, run: Any, run_id: str, parent: str) -> str:
        """Send the version that a run registered, with its files and tags; return its address. Equal content is one version."""
        name, number = address.removeprefix("models:/").rsplit("/", 1)
        version = self._source.get_model_version(name, number)
        known = self._known_version(name, version.tags.get(DIGEST_TAG, ""))
        address = f"models:/{name}/{known or self._register(version, run_id)}"
        self._target.set_tag(run_id, REGISTERED_MODEL, address)
        origin = (names.MODEL_RUN, names.MODEL_PARENT_RUN)
        describe_version(self._target, run_id, parent, {key: v for key, v in version.tags.items() if key not in origin})
        return address

    def _known_version(self, name: str, digest: str) -> str:
        found = self._target.search_model_versions(f"name = '{name}'")
        return next((str(v.version) for v in found if digest and v.tags.get(DIGEST_TAG) == digest and v.status == "READY"), "")

    def _register(self, version: Any, run_id: str) -> str:
        from mlflow.exceptions import MlflowException

        try:
            self._target.create_registered_model(version.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        model_id = self._send_model(version, run_id)
        tags = {DIGEST_TAG: version.tags.get(DIGEST_TAG, "")}
        created = self._target.create_model_version(version.name, f"models:/{model_id}", run_id, tags, model_id=model_id)
        return str(created.version)

    def _send_model(self, version: Any, run_id: str) -> str:
        """Send the logged model of a version; return its id on the server."""
        from mlflow.entities import LoggedModelOutput

        model = self._source.get_logged_model(version.source.removeprefix("models:/"))
        wanted = f"tags.`{MODEL_ORIGIN}` = '{model.model_id}'"
        found = self._target.search_logged_models([self._experiment], wanted, max_results=1)
        tags = {**{key: v for key, v in model.tags.items() if not key.startswith("mlflow.")}, MODEL_ORIGIN: model.model_id}
        create = self._target.create_logged_model
        copy = found[0] if found else create(self._experiment, model.name, run_id, tags, model.params, model.model_type)
        if str(copy.status).rpartition(".")[2] != "READY":
            with tempfile.TemporaryDirectory() as folder:
                files = self._files_of(version, copy, run_id, Path(folder))
                self._target.log_model_artifacts(copy.model_id, str(files))
            self._target.finalize_logged_model(copy.model_id, "READY")
        self._target.log_outputs(run_id, [LoggedModelOutput(copy.model_id, step=0)])
        return str(copy.model_id)

    def _files_of(self, version: Any, copy: Any, run_id: str, folder: Path) -> Path:
        """Return a folder with the files of a version, whose description names the copy instead of the original."""
        import yaml
        from mlflow.artifacts import download_artifacts

        uri = self._source.get_model_version_download_uri(version.name, version.version)
        path = Path(download_artifacts(artifact_uri=uri, dst_path=str(folder), tracking_uri=self._source.tracking_uri))
        description = yaml.safe_load((path / "MLmodel").read_text(encoding="utf-8"))
        own = {
            "model_id": copy.model_id,
            "model_uuid": copy.model_id,
            "run_id": run_id,
            "artifact_path": copy.artifact_location,
        }
        (path / "MLmodel").write_text(yaml.safe_dump(description | own), encoding="utf-8")
        return path

    def _confirm(self, parent: Any, copy: str) -> None:
        """Make what the run registered the candidate, unless a later run has registered one."""
        tags = f"tags.`{PARENT_TAG}` = '{copy}' AND tags.`{REGISTERED_MODEL}` LIKE 'models:/%'"
        for stage in self._target.search_runs([self._experiment], tags) if parent.info.status == "FINISHED" else ():
            name = stage.data.tags[REGISTERED_MODEL].split("/")[1]
            number = self._target.get_registered_model(name).aliases.get(CANDIDATE)
            present = self._target.get_model_version(name, number).tags.get(names.MODEL_PARENT_RUN, "") if number else ""
            if present and present != copy and self._target.get_run(present).info.start_time > parent.info.start_time:
                logger.info("The candidate of %s stays: it is from a later run.", name)
            else:
                confirm(self._target, copy)


def _tags(values: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(key, value) for key, value in values.items()]


def _params(values: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(key, value) for key, value in values.items()]
