"""The command `kedro plan`, and what `kedro run` has of it: the plan in short, and `--only-changed`."""

import json
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click
from kedro.framework.project import settings
from kedro.framework.startup import bootstrap_project
from kedro.utils import find_kedro_project

from fourfold_ops import handover
from fourfold_ops.cli import validation
from fourfold_ops.errors import UserError
from fourfold_ops.last_run import LAST_RUN_FILE
from fourfold_ops.loading import load_object
from fourfold_ops.planning import checks
from fourfold_ops.planning.layout import read_stages
from fourfold_ops.planning.plan import DATA, Present, has_new_parameters, plan_stages
from fourfold_ops.planning.project import PlannedProject
from fourfold_ops.planning.text import WholePlan, long_text, short_text
from fourfold_ops.secrets import add_secrets_of, redact
from fourfold_ops.suggestions import did_you_mean

logger = logging.getLogger(__name__)
TAKEN = (
    "env",
    "params",
    "pipeline",
    "pipelines",
    "conf_source",
    "runner",
    "runner_params",
)  # options of `kedro run` that change a plan
PARTS = ("tags", "node_names", "from_nodes", "to_nodes", "from_inputs", "to_outputs", "namespaces", "only_missing_outputs")
NEEDS_LIBRARIES = {
    "parameter",
    "code",
    "package",
    "unknown",
    "missing",
    "outside",
}  # changes after which all checks are repeated


@dataclass(frozen=True)
class Planned:
    """What a project tells the planner.

    Attributes:
        project: Dotted path of its `PlannedProject`.
        jobs: Dotted paths of functions by runner, (options of `kedro run`) → one line for each Job that it would submit.
        is_skipped_if_unchanged: Whether a whole run with nothing to do is recorded without calling its stages. Its settings
            must have `LastRunHook`; other hooks of the project are not called then.
    """

    project: str
    jobs: Mapping[str, str] = field(default_factory=dict)
    is_skipped_if_unchanged: bool = False


def plan_command(run: click.Command, planned: Planned) -> click.Command:
    """Return the command `kedro plan`; `run` is `kedro run`."""

    def plan(as_json: bool, **options: Any) -> None:
        found = make_plan(planned, options)
        click.echo(redact(json.dumps(found.as_json(), indent=1) if as_json else long_text(found)))
        sys.exit(found.exit_code)

    chosen = [option for option in run.params if option.name in TAKEN]
    flag = click.Option(["--json", "as_json"], is_flag=True, help="Print the plan as JSON.")
    text = "Print what `kedro run` would do with these options: which stages run, why, and what that costs. Changes nothing."
    return click.Command("plan", params=[*chosen, flag], callback=plan, help=text)


def with_plan(run: click.Command, planned: Planned) -> click.Command:
    """Return `kedro run` with the option `--only-changed`, which prints its plan before it starts."""
    inner: Callable[..., Any] = run.callback or (lambda **options: None)

    def wrapped(only_changed: bool, **options: Any) -> Any:
        is_part = any(options.get(name) for name in PARTS)
        if only_changed and is_part:
            raise click.UsageError("--only-changed chooses whole stages. Use it without options that choose nodes.")
        if handover.received() or handover.rank() or is_part:
            return inner(**options)
        if not only_changed and _record_unchanged(planned, options):
            return None
        found = _plan_of_run(planned, options, must_work=only_changed)
        if found is not None:
            click.echo(redact(short_text(found)), err=True)
        if only_changed and found is not None:
            if not found.running:
                return None
            os.environ[handover.REUSED] = ",".join(stage.name for stage in found.stages if not stage.runs)
            options |= {"pipelines": [stage.name for stage in found.running], "pipeline": None}
        return inner(**options)

    option = click.Option(["--only-changed"], is_flag=True, help="Run exactly the stages that `kedro plan` names.")
    return click.Command(name=run.name, callback=wrapped, params=[*run.params, option], help=run.help)


def _record_unchanged(planned: Planned, options: dict[str, Any]) -> bool:
    """Record a run that has nothing to do without loading its stages; return whether that was possible."""
    from fourfold_ops.unchanged import is_candidate, record_unchanged

    root = find_kedro_project(Path.cwd())
    is_known = root is not None and (root / DATA / LAST_RUN_FILE).is_file()  # otherwise, do not even load the configuration
    if not planned.is_skipped_if_unchanged or not is_known or not is_candidate(options):
        return False
    try:
        found = _project(planned, options)
    except Exception:  # the run reports what is wrong
        logger.debug("The configuration cannot be read.", exc_info=True)
        return False
    return record_unchanged(*found, options)


def _plan_of_run(planned: Planned, options: dict[str, Any], must_work: bool) -> WholePlan | None:
    """Return the plan of a run that could start; a run that needs none starts without it if it cannot be made."""
    try:
        present, tracking = _present(planned, options)
    except Exception:
        if must_work:
            raise
        logger.debug("The configuration cannot be read; the run reports what is wrong.", exc_info=True)
        return None
    try:
        whole = _whole(present, options)
    except Exception as error:
        if must_work:
            raise
        # A pipeline that is no stage, or does not exist, has no plan. Anything else is a fault of the planner.
        level = logging.DEBUG if isinstance(error, UserError) else logging.WARNING
        logger.log(level, "No plan (%s: %s): this run starts unchecked.", type(error).__name__, error)
        return None
    called = whole.running if must_work else whole.stages
    checks.require_start(present, [stage.name for stage in called], tracking)
    return whole


def make_plan(planned: Planned, options: dict[str, Any]) -> WholePlan:
    """Return the plan of a run, with its problems.

    Args:
        planned: What the project tells.
        options: Those of `kedro run` that count, see `TAKEN`.

    Raises:
        UserError: A stage does not exist, or the project cannot be planned.
    """
    present, tracking = _present(planned, options)
    names = _selected(present.project_path, options) or [stage.name for stage in read_stages(present.project_path)]
    jobs = planned.jobs.get(options.get("runner") or "", "")

    def start() -> subprocess.Popen[str]:
        return validation.start(present, names, jobs, options)

    # what needs the libraries of the stages is checked in a second process, and only if something changed since it passed
    process = start() if jobs or has_new_parameters(present, names) else None
    whole = _whole(present, options)
    if process is None and any(change.kind in NEEDS_LIBRARIES for stage in whole.running for change in stage.changes):
        process = start()
    problems, notes = checks.find_problems(present, whole.stages, tracking), checks.find_notes(present, whole.stages)
    storage = present.project.storage(present.project_path, present.parameters, present.catalog)
    notes += [note for note in [checks.storage_note(present, whole.stages, storage)] if note]
    found = validation.result_of(process) if process else validation.Findings()
    if found.problem and found.problem not in [problem.text for problem in problems]:
        problems.append(checks.Problem(found.problem))
    return replace(whole, problems=problems, notes=notes, jobs=found.jobs, storage=storage)


def _present(planned: Planned, options: dict[str, Any]) -> tuple[Present, Mapping[str, Any]]:
    """Return the project as it is, and the configuration of the tracking server."""
    root, project, loader = _project(planned, options)
    return Present(root, project, loader["parameters"], loader["catalog"]), loader["tracking"]


def _project(planned: Planned, options: dict[str, Any]) -> tuple[Path, PlannedProject, Any]:
    """Return the project: its folder, what it tells, and its configuration with these options of `kedro run`."""
    root = find_kedro_project(Path.cwd())
    if root is None:
        raise UserError(f"{Path.cwd()} is in no project.", "Change to a project folder.")
    bootstrap_project(root)
    add_secrets_of(root, settings.CONF_SOURCE)
    arguments = {**settings.CONFIG_LOADER_ARGS, "env": options.get("env"), "runtime_params": options.get("params") or {}}
    loader = settings.CONFIG_LOADER_CLASS(options.get("conf_source") or str(root / settings.CONF_SOURCE), **arguments)
    return root, load_object(planned.project), loader


def _whole(present: Present, options: dict[str, Any]) -> WholePlan:
    root, stages = present.project_path, plan_stages(present, _selected(present.project_path, options))
    needed, free = checks.needed_bytes(present, stages), checks.free_bytes(root)
    return WholePlan(shlex.join(["kedro", "run", *_given(options)]), stages, needed=needed, free=free)


def _selected(root: Path, options: dict[str, Any]) -> list[str]:
    """Return the names of the chosen stages; empty for all. Raises UserError for one that does not exist."""
    names = list(options.get("pipelines") or ([options["pipeline"]] if options.get("pipeline") else []))
    known = [stage.name for stage in read_stages(root)]
    if "__default__" in names:
        return []
    for name in names:
        if name not in known:
            raise UserError(f"There is no stage {name!r}.{did_you_mean(name, known)}", f"Choose from: {', '.join(known)}.")
    return names


def _given(options: dict[str, Any]) -> list[str]:
    from fourfold_ops.versioning.run_file import flags

    names = list(options.get("pipelines") or ([options["pipeline"]] if options.get("pipeline") else []))
    chosen = [f"--pipelines={','.join(names)}"] if names else []
    runner = [f"--runner={options['runner']}"] if options.get("runner") else []
    return [*shlex.split(flags(options.get("env") or "base", options.get("params") or {})), *chosen, *runner]
