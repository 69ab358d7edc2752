"""A past run by its record in MLflow: by the id of a run, or by a model version that it registered."""

import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fourfold_ops.cli.catalog import configuration
from fourfold_ops.errors import UserError
from fourfold_ops.reproduction import git
from fourfold_ops.tracking import names
from fourfold_ops.tracking.store import SQLITE, VARIABLE, TrackingStore, absolute_uri
from fourfold_ops.versioning.repository import LOCK_FILE

logger = logging.getLogger(__name__)
RUN_ID = re.compile(r"[0-9a-f]{32}")
MODEL = re.compile(r"(?:models:/)?([^/@]+)(?:/(\d+)|@([^/@]+))")
PARENT = "mlflow.parentRunId"
COMPUTE = "compute."
MACHINE_FACTS = ("platform", "python", "machine", "machine.cpu")
# Tags of a reproduction, and of the run that was reproduced.
REPRODUCES = "reproduction.of"  # id of the original run
VERDICT = "reproduction.verdict"  # "identical", "within tolerance" or "different"; on the original: of the latest one
LATEST = "reproduction.run_id"  # on the original: the latest reproduction


def open_store(project: Path) -> TrackingStore | None:
    """Return the store that the project's configuration names; None if it is a local file that does not exist."""
    settings = configuration("tracking", start=project)
    if not settings:
        return None
    uri = absolute_uri(os.environ.get(VARIABLE) or settings["uri"], project)
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).exists():
        return None
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return TrackingStore(project, **settings)


def looks_like_model(reference: str) -> bool:
    """Return whether a text names a model version: `models:/name/3`, `models:/name@alias` or `name@alias`."""
    found = MODEL.fullmatch(reference)
    return bool(found and (reference.startswith("models:/") or found[3]))


def find_run(store: TrackingStore, reference: str) -> Any:
    """Return the parent run that a run id or a model version names.

    Raises:
        UserError: There is none; the message lists what exists.
    """
    from mlflow.exceptions import MlflowException

    try:
        run_id = _run_of_model(store, reference) if looks_like_model(reference) else reference
        run = store.client.get_run(run_id)
        parent = run.data.tags.get(names.MODEL_PARENT_RUN) or run.data.tags.get(PARENT)
        return store.client.get_run(parent) if parent else run
    except MlflowException as error:
        raise UserError(
            f"MLflow ({store.uri}) has no run or model version {reference!r}: {error.message.splitlines()[0]}",
            "Choose one that `make ui` shows.",
        ) from error


def _run_of_model(store: TrackingStore, reference: str) -> str:
    found = MODEL.fullmatch(reference)
    assert found
    name, number, alias = found.groups()
    client = store.client
    version = client.get_model_version(name, number) if number else client.get_model_version_by_alias(name, alias)
    return str(version.tags.get(names.MODEL_PARENT_RUN) or version.run_id)


def run_of_lock(store: TrackingStore, md5: str) -> Any | None:
    """Return the first successful parent run that left a lock with this MD5; None without one."""
    wanted = f"tags.`{names.LOCK_MD5}` = '{md5}' AND attributes.status = 'FINISHED'"
    runs = store.client.search_runs([store.experiment_id], wanted, order_by=["attributes.start_time ASC"], max_results=50)
    return next((run for run in runs if PARENT not in run.data.tags), None)


def facts_in(database: Path) -> dict[str, str]:
    """Return the facts about the machine of the latest parent run in a local store; none without a store."""
    if not database.exists():
        return {}
    import mlflow

    client = mlflow.MlflowClient(f"{SQLITE}{database.as_posix()}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, order_by=["attributes.start_time DESC"], max_results=1000)
    parent = next((run for run in runs if PARENT not in run.data.tags), None)
    return {} if parent is None else facts_of(client, parent)


def facts_of(client: Any, run: Any) -> dict[str, str]:
    """Return what is known of the machine of a run: facts of the parent, and `compute.*` of each stage as "stage.name"."""
    facts = {name: run.data.tags[name] for name in MACHINE_FACTS if name in run.data.tags}
    for child in _children(client, run):
        stage = child.data.tags.get("stage")
        tags = child.data.tags.items() if stage else ()
        facts |= {f"{stage}.{name.removeprefix(COMPUTE)}": value for name, value in tags if name.startswith(COMPUTE)}
    return dict(sorted(facts.items()))


def image_of(client: Any, run: Any) -> str:
    """Return the container image of the pods of a run, by digest; "" if it had none, or several."""
    found = {child.data.tags[names.IMAGE] for child in _children(client, run) if names.IMAGE in child.data.tags}
    return found.pop() if len(found) == 1 else ""


def _children(client: Any, run: Any) -> Any:
    return client.search_runs([run.info.experiment_id], f"tags.`{PARENT}` = '{run.info.run_id}'", max_results=1000)


def artifact(store: TrackingStore, run: Any, name: str) -> bytes | None:
    """Return an artifact of a run; None if it has none of that name."""
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            return Path(store.client.download_artifacts(run.info.run_id, name, folder)).read_bytes()
        except (MlflowException, OSError):
            return None


def lock_of(store: TrackingStore, run: Any, project: Path) -> bytes:
    """Return the lock that a run left: its artifact, else the one with its MD5 in the working tree or the history of git.

    Raises:
        UserError: The run recorded none, or the lock is nowhere.
    """
    wanted = run.data.tags.get(names.LOCK_MD5, "absent")
    title = f"MLflow run {run.info.run_id}"
    if run.data.tags.get(names.RECORDED, "true") != "true" or wanted == "absent":
        raise UserError(
            f"{title} is not recorded in dvc.lock, because it did not run whole stages or failed.",
            "Choose a run of whole stages.",
        )
    for content in _locks(store, run, project):
        if hashlib.md5(content, usedforsecurity=False).hexdigest() == wanted:
            return content
    raise UserError(
        f"The dvc.lock of {title} (MD5 {wanted}) is neither its artifact nor in the history of git.",
        "Fetch the branch with its lock, or give a git revision.",
    )


def _locks(store: TrackingStore, run: Any, project: Path) -> Iterable[bytes]:
    recorded = artifact(store, run, names.LOCK)
    if recorded is not None:
        yield recorded
    if (project / LOCK_FILE).is_file():
        yield (project / LOCK_FILE).read_bytes()
    for commit in git.git(project, "log", "--all", "--format=%H", "--", LOCK_FILE).decode().split():
        content = git.read(project, commit, LOCK_FILE)
        if content is not None:
            yield content


def patch_of(store: TrackingStore, run: Any) -> bytes:
    """Return the uncommitted changes of a run; nothing for a clean tree.

    Raises:
        UserError: They were not recorded, or the record was changed.
    """
    if run.data.tags.get(names.DIRTY) != "true":
        return b""
    content, wanted = artifact(store, run, names.PATCH), run.data.tags.get(names.PATCH_SHA256, "")
    title = f"MLflow run {run.info.run_id}"
    if content is None or not wanted:
        raise UserError(f"{title} was made with uncommitted changes that were not recorded.", "Choose a run of a clean tree.")
    if hashlib.sha256(content).hexdigest() != wanted:
        raise UserError(f"The recorded changes of {title} do not have the SHA-256 {wanted}.", "Restore the artifact.")
    return content
