"""Puts the origin and the metrics of a run on the model version that it registered."""

import time
from collections.abc import Mapping
from typing import Any

from fourfold_ops.tracking import names
from fourfold_ops.tracking.run import REGISTERED_MODEL, TAG_LENGTH

NOTE = "mlflow.note.content"  # the description that MLflow shows above tags and metrics
MARK = "Recorded with the run"  # first words of descriptions that are written here; others belong to people
METRICS_PER_BATCH = 500
# Tags of a version in the order in which they matter; absent ones are removed from an older record of the same content.
OPTIONAL = (names.PATCH_SHA256, names.PATCH_LEFT_OUT, names.OUTDATED, names.RESULTS_LEFT_OUT, names.WARNINGS)


def describe_version(client: Any, run_id: str, parent_run_id: str, tags: Mapping[str, str]) -> str:
    """Record the tags and metrics of a run on the model version that it registered.

    A version that several runs registered (equal content) keeps the record of a clean, whole run over that of another one.

    Args:
        client: The MLflow client.
        run_id: The run of the stage that registered the version.
        parent_run_id: The run with the metrics and artifacts.
        tags: The tags of the run.

    Returns:
        The address of the version, "" if the run registered none.
    """
    run = client.get_run(run_id)
    address = run.data.tags.get(REGISTERED_MODEL, "")
    if not address:
        return ""
    name, number = address.removeprefix("models:/").rsplit("/", 1)
    version = client.get_model_version(name, number)
    own = {**tags, names.MODEL_RUN: run_id, names.MODEL_PARENT_RUN: parent_run_id}
    if _is_clean(version.tags) and not _is_clean(own):
        return address
    for key in OPTIONAL:
        if key in version.tags and key not in own:
            client.delete_model_version_tag(name, number, key)
    for key, value in own.items():
        client.set_model_version_tag(name, number, key, value[:TAG_LENGTH])
    _describe(client, version, own)
    _log_metrics(client, run, version, own)
    return address


def note_of(warnings: str) -> str:
    """Return the description of a run or version; "" if there is nothing to say."""
    return f"{MARK}: {warnings}" if warnings else ""


def _is_clean(tags: Mapping[str, str]) -> bool:
    """Return whether a clean, whole and recorded run is described."""
    return (
        tags.get(names.DIRTY) == "false"
        and tags.get(names.RESULTS_SCOPE) == names.WHOLE
        and tags.get(names.RECORDED) == "true"
        and names.OUTDATED not in tags
    )


def _describe(client: Any, version: Any, tags: Mapping[str, str]) -> None:
    if not version.description or version.description.startswith(MARK):
        client.update_model_version(version.name, version.version, note_of(tags.get(names.WARNINGS, "")))


def _log_metrics(client: Any, run: Any, version: Any, tags: Mapping[str, str]) -> None:
    """Link the metrics of the parent run, which are all results, to the logged model: MLflow compares those."""
    from mlflow.entities import Metric

    scheme, _, model = str(version.source).partition(":/")
    if scheme != "models" or not model.startswith("m-"):  # a version that somebody registered from a plain folder
        return
    now = int(time.time() * 1000)
    values = client.get_run(tags[names.MODEL_PARENT_RUN]).data.metrics
    metrics = [Metric(key, value, now, 0, model_id=model) for key, value in values.items()]
    for start in range(0, len(metrics), METRICS_PER_BATCH):
        client.log_batch(run.info.run_id, metrics=metrics[start : start + METRICS_PER_BATCH])
    client.set_logged_model_tags(model, {key: value[:TAG_LENGTH] for key, value in tags.items()})
