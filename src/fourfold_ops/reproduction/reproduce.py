"""Repeats a past run in a separate worktree, and compares the results with its record."""

import hashlib
import json
import shlex
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import click
from kedro.utils import find_kedro_project

from fourfold_ops import data_lock
from fourfold_ops.errors import EXIT_FAILED, UserError
from fourfold_ops.reproduction.comparison import Comparison
from fourfold_ops.reproduction.environment import changes, decides_bits, fact_changes
from fourfold_ops.reproduction.inputs import compare_inputs, compare_parameters, is_code
from fourfold_ops.reproduction.metrics import MetricResult, Tolerance, compare_metrics, exact, found_metrics, recorded_metrics
from fourfold_ops.reproduction.nodes import first_node
from fourfold_ops.reproduction.objects import Objects
from fourfold_ops.reproduction.on_cluster import Site
from fourfold_ops.reproduction.origin import Original, with_pipelines
from fourfold_ops.reproduction.outputs import SAME, OutputResult, compare_outputs
from fourfold_ops.reproduction.recorded_run import facts_in
from fourfold_ops.reproduction.verification import chosen_stages
from fourfold_ops.reproduction.workspace import STORE, Start, Workspace

# In the folder, while the worktree is ready and its run has not ended: the commands. Only the same commands are continued: data
# that were restored for others would count as reproduced.
STARTED = ".started"


class RunFailedError(UserError):
    """The repeated run ended with an error, so there is nothing to compare."""

    exit_code = EXIT_FAILED


@dataclass(frozen=True)
class Request:
    """What to reproduce, and how.

    Attributes:
        project: The user's project.
        original: The past run.
        stages: Only these; none means those of the original command.
        folder: Receives worktree and reports.
        variables: Environment variables that make this machine round as the recorded one, where it can.
        tolerance: Of metrics on a machine that rounds differently.
        site: The cluster that runs the steps; None: this machine.
    """

    project: Path
    original: Original
    stages: tuple[str, ...]
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)
    tolerance: Tolerance = exact
    site: Site | None = None


def reproduce(request: Request, start: Start | None = None) -> tuple[Comparison, Workspace]:
    """Repeat the run and compare it; the user's tree, data, cache and record of runs are only read.

    An interrupted reproduction of the same commit is continued. One that ended is repeated from empty data.

    Args:
        request: What to reproduce.
        start: Starts the command; by default a subprocess on this terminal.

    Raises:
        RunFailedError: The run ended with an error.
        BusyError: The same reproduction runs in another process.
        UserError: Something that it needs is missing.
    """
    original, objects = request.original, Objects(request.project)
    stages = _stages(original, request.stages)
    if request.site is not None:
        request.site.check(request.folder)
    ignore_in_git(request.folder)
    data_lock.acquire(request.folder, f"kedro reproduce {original.title}")
    try:
        workspace = Workspace(request.project, request.folder, original.commit)
        commands, started = commands_of(original, stages), request.folder / STARTED
        content = json.dumps([commands, hashlib.sha256(original.patch).hexdigest()])
        if not (workspace.exists() and started.exists() and started.read_text(encoding="utf-8") == content):
            started.unlink(missing_ok=True)
            workspace.create(original.patch)
            _restore_inputs(original, stages, workspace, objects)
            started.write_text(content, encoding="utf-8")
        for command in commands:
            _run(request, command, workspace, start)
        started.unlink()
        return _compare(request, stages, commands, workspace, objects), workspace
    finally:
        data_lock.release(request.folder)


def ignore_in_git(folder: Path) -> None:
    """Create the folder of a reproduction; inside a project, git ignores it, so that it makes no tree dirty."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        marker = folder / ".gitignore"
        if find_kedro_project(folder) is not None and not marker.exists():
            marker.write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder} cannot be created ({error.strerror}).", "Give another folder with --folder.") from error


def _stages(original: Original, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the stages that are repeated: the wanted ones, else those of the original command, else all of the lock."""
    return chosen_stages(original, wanted or original.ran)


def commands_of(original: Original, stages: tuple[str, ...]) -> list[list[str]]:
    """Return the commands that make stages: that of the run, or for a revision one for neighbors with the same options."""
    if original.command is not None:
        arguments = list(original.command)
        is_same = set(stages) == set(original.ran or original.stages)
        return [["kedro", *(arguments if is_same else with_pipelines(arguments, stages))]]
    groups = groupby(stages, key=lambda name: original.lock.stages[name].options)
    commands = []
    for options, names in groups:
        if options is None:
            raise UserError(
                f"The lock of {original.title} has a stage that `kedro run` did not make.", "Choose others with --stage."
            )
        commands.append(["kedro", "run", *options, f"--pipelines={','.join(names)}"])
    is_whole = len(commands) == 1 and stages == original.stages
    return [commands[0][:-1]] if is_whole else commands


def _run(request: Request, command: list[str], workspace: Workspace, start: Start | None) -> None:
    variables = request.variables
    if request.site is not None:
        request.site.make_folders(workspace.root)
        command = [*command, *request.site.arguments()]
        variables = variables | request.site.variables(workspace.root, request.original.image, list(variables))
    click.echo(f"Running `{shlex.join(command)}` in {workspace.root}", err=True)
    if code := workspace.run(command, variables, start):
        raise RunFailedError(
            f"The repeated run of {request.original.title} ended with exit code {code}.",
            f"Read {workspace.root / 'data/run.log'}; the same command continues.",
        )


def _restore_inputs(original: Original, stages: tuple[str, ...], workspace: Workspace, objects: Objects) -> None:
    """Restore what the stages read and this run does not make: results of other stages, and data that DVC versions."""
    lock = original.lock
    for entry in lock.needed_outputs(stages).values():
        click.echo(f"Restoring {entry.path} as recorded", err=True)
        objects.restore(entry, workspace.root)
    for path, (entry, _) in lock.inputs(stages).items():
        is_local = "://" not in path and not Path(path).is_absolute() and not path.startswith("..")
        if is_local and not (workspace.root / path).exists() and not is_code(workspace.root, path):
            click.echo(f"Restoring {path} as recorded", err=True)
            objects.restore(entry, workspace.root)


def _compare(
    request: Request, stages: tuple[str, ...], commands: list[list[str]], workspace: Workspace, objects: Objects
) -> Comparison:
    original, root = request.original, workspace.root
    outputs = compare_outputs(original.lock, stages, root, objects)
    environment = changes(original.requirements, original.packages)
    environment += fact_changes(original.facts, facts_in(root / STORE))
    tolerance = request.tolerance if decides_bits(environment) else exact
    return Comparison(
        original.title,
        original.commit,
        original.run_id,
        " && ".join(map(shlex.join, commands)),
        stages,
        tuple(outputs),
        tuple(compare_inputs(original.lock, stages, root, root)),
        tuple(compare_parameters(original.lock, stages, root)),
        tuple(original.lock.contradictions(stages)),
        tuple(_metrics(original, stages, root, objects, tolerance)),
        tuple(environment),
        _first_node(environment_of(commands[0]), workspace, outputs),
        original.notes,
    )


def _metrics(
    original: Original, stages: tuple[str, ...], root: Path, objects: Objects, tolerance: Tolerance
) -> list[MetricResult]:
    made = {out.path for name in stages for out in original.lock.stages[name].outs}
    files = [file for file in original.metrics_files if any(file == path or file.startswith(f"{path}/") for path in made)]
    recorded = recorded_metrics(files, original.lock, objects)
    return compare_metrics(recorded, found_metrics(files, root), tolerance) if recorded else []


def _first_node(environment: str, workspace: Workspace, outputs: list[OutputResult]) -> str:
    files = [change.path for output in outputs for change in output.files]
    files += [output.path for output in outputs if output.status != SAME and not output.files]
    return first_node(workspace, environment, files) if files else ""


def environment_of(arguments: list[str]) -> str:
    """Return the folder of conf/ that the arguments of a run name, or ""."""
    for position, word in enumerate(arguments):
        if word.startswith("--env="):
            return word.removeprefix("--env=")
        if word in ("--env", "-e") and position + 1 < len(arguments):
            return arguments[position + 1]
    return ""
