"""A run that has nothing to do: recorded like any other, but from the record of the run before, without loading a stage.

The stages need libraries that take many seconds to load. If every result is as the last whole run left it, calling them would
record the same data, metrics and artifacts again; so these are copied, and only what belongs to this run is determined.
"""

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from kedro.config import AbstractConfigLoader
from kedro.framework.context import KedroContext
from kedro.io.core import generate_timestamp
from pluggy import PluginManager

from fourfold_ops import data_lock, handover
from fourfold_ops.hooks.summary import SummaryHook
from fourfold_ops.last_run import LastRun, forget_last_run, read_last_run
from fourfold_ops.planning import contents
from fourfold_ops.planning.layout import read_stages
from fourfold_ops.planning.plan import DATA, StagePlan
from fourfold_ops.planning.project import PlannedProject
from fourfold_ops.planning.text import WholePlan, short_text
from fourfold_ops.recording import RunRecord, origin_now
from fourfold_ops.registry.confirmation import confirm
from fourfold_ops.run_summary.collect import Work
from fourfold_ops.run_summary.facts import REUSED, StageFact
from fourfold_ops.secrets import add_secrets, add_secrets_of, is_secret_name, refuse_secrets
from fourfold_ops.sending import send_before_run
from fourfold_ops.tracking import names
from fourfold_ops.tracking.coverage import Coverage
from fourfold_ops.tracking.processes import end_stale_runs
from fourfold_ops.tracking.provenance import command_line, flat
from fourfold_ops.tracking.run import REGISTERED_MODEL, ActiveRun
from fourfold_ops.tracking.run_tree import PARENT_TAG
from fourfold_ops.tracking.store import TrackingStore
from fourfold_ops.versioning.remote import is_push_requested

logger = logging.getLogger(__name__)
CHOSEN = ("env", "params", "is_async")  # options of `kedro run` that an unchanged run may have
# Results may depend on these without a change of code or parameters: with other ones, the stages decide.
SAME = (names.COMMAND, names.PACKAGES_SHA256, names.LOCK_MD5, names.IMAGE, "platform", "python", "machine", "machine.cpu")
COPIED = (REGISTERED_MODEL, names.RESULTS_SCOPE, names.RESULTS_LEFT_OUT)  # tags; and those of `compute.`
ORDER = ["attributes.start_time ASC"]
PROVENANCE = "provenance"  # folder of the artifacts that each run writes itself


def is_candidate(options: Mapping[str, Any]) -> bool:
    """Return whether a run with these options may be recorded without its stages: it is whole, here, and pushes nothing."""
    chosen = any(value for name, value in options.items() if name not in CHOSEN)
    elsewhere = handover.received() or handover.rank() or "DVC_STAGE" in os.environ or "WORLD_SIZE" in os.environ
    return not (chosen or elsewhere or is_push_requested())


def record_unchanged(
    project_path: Path, planned: PlannedProject, loader: AbstractConfigLoader, options: Mapping[str, Any]
) -> bool:
    """Record a run that has nothing to do, and print its summary.

    Args:
        project_path: The project.
        planned: What it tells the planner.
        loader: Its configuration with these options.
        options: Those of `kedro run`.

    Returns:
        False if the record of the run before cannot stand for this one; then nothing has changed, and the stages must run.
    """
    data = project_path / DATA
    last = read_last_run(data)
    if last is None or not last.is_intact(project_path, planned, loader["parameters"]):
        return False
    stages = [StagePlan(stage.name, (), outputs=stage.outputs) for stage in read_stages(project_path)]
    click.echo(short_text(WholePlan("", stages)), err=True)
    runtime_params = options.get("params") or {}
    run_params = {"env": options.get("env"), "runtime_params": runtime_params, "run_id": generate_timestamp()}
    context = KedroContext(project_path, loader, options.get("env"), project_path.name, PluginManager("kedro"))
    add_secrets_of(project_path)
    add_secrets(value for name, value in flat(loader["parameters"]).items() if is_secret_name(name))
    refuse_secrets(flat(runtime_params))
    data_lock.acquire(data, command_line(run_params))
    try:
        return _record(context, last, run_params)
    finally:
        data_lock.release(data)


def _record(context: KedroContext, last: LastRun, run_params: dict[str, Any]) -> bool:
    store = TrackingStore.from_context(context)
    before = _runs_of(store.client, last.run_id)
    if before is None:
        return False
    origin = origin_now(context, run_params)
    if any(before[0].data.tags.get(key) != origin.tags.get(key) for key in SAME):
        return False
    forget_last_run(context.project_path / DATA)
    record = RunRecord(context, store, run_params, origin)
    send_before_run(store)
    end_stale_runs(store.client, store.experiment_id, store.is_local)
    work = _work(context.project_path, last)
    with _ended(record):
        _copy(store.client, before[0], record.runs.parent)
        for stage in before[1]:
            _copy(store.client, stage, record.runs.stage(stage.data.tags["stage"]))
        record.conclude_with(Coverage(tuple(stage.name for stage in work.stages), recorded=True))
        logger.info("Every result is as the last run left it, so no stage was called; dvc.lock names them all.")
    confirm(store.client, record.runs.parent.run_id)
    last.again(record.runs.parent.run_id).write(context.project_path / DATA)
    summary = SummaryHook()
    summary.after_context_created(context)
    summary.conclude(set(last.makers), work, record.runs.parent)
    return True


def _runs_of(client: Any, run_id: str) -> tuple[Any, list[Any]] | None:
    """Return a parent run and its stage runs; None if they cannot stand for another run, e.g. because one was deleted."""
    from mlflow.exceptions import MlflowException

    try:
        parent = client.get_run(run_id)
        stages = client.search_runs([parent.info.experiment_id], f"tags.`{PARENT_TAG}` = '{run_id}'", order_by=ORDER)
        for stage in stages:
            if address := stage.data.tags.get(REGISTERED_MODEL):
                client.get_model_version(*address.removeprefix("models:/").rsplit("/", 1))
    except MlflowException:
        return None
    tags = parent.data.tags
    is_whole = tags.get(names.RECORDED) == "true" and tags.get(names.SCOPE) == names.WHOLE and names.OUTDATED not in tags
    active = all(run.info.status == "FINISHED" and run.info.lifecycle_stage == "active" for run in (parent, *stages))
    found = {stage.data.tags.get("stage") for stage in stages}
    return (parent, stages) if is_whole and active and found == set(tags[names.STAGES].split(", ")) else None


def _copy(client: Any, source: Any, target: ActiveRun) -> None:
    """Copy data, results and facts of a finished run; the course of a training and the use of the machine stay with it."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    if source.inputs.dataset_inputs:
        client.log_inputs(target.run_id, source.inputs.dataset_inputs)
    steps = {metric.key: metric for metric in source.data._metric_objs}
    target.log_metrics({key: metric.value for key, metric in steps.items() if metric.step == 0})
    tags = source.data.tags.items()
    target.set_tags({key: value for key, value in tags if key in COPIED or key.startswith("compute.")})
    with tempfile.TemporaryDirectory() as folder:
        for item in client.list_artifacts(source.info.run_id):
            if item.path not in (PROVENANCE, names.PARAMETERS):
                client.download_artifacts(source.info.run_id, item.path, folder)
        client.log_artifacts(target.run_id, folder)


def _work(project_path: Path, last: LastRun) -> Work:
    found = read_stages(project_path)
    sizes = {stage.name: sum(contents.size(project_path / out) for out in stage.outputs) for stage in found}
    return Work([StageFact(stage.name, REUSED, None, sizes[stage.name]) for stage in found], last.makers)


@contextmanager
def _ended(record: RunRecord) -> Iterator[None]:
    """End the runs in every case."""
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    finally:
        record.runs.end(status)
