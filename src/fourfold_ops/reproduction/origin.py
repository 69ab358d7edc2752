"""What is reproduced: the commit, lock, command and machine of a past run."""

import hashlib
import logging
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from fourfold_ops.errors import UserError
from fourfold_ops.reproduction import git
from fourfold_ops.reproduction import recorded_run as recorded
from fourfold_ops.reproduction.lock import Lock
from fourfold_ops.tracking import names
from fourfold_ops.tracking.store import TrackingStore
from fourfold_ops.versioning.repository import LOCK_FILE
from fourfold_ops.versioning.run_file import RUN_FILE

logger = logging.getLogger(__name__)
REQUIREMENTS = "requirements.lock"
NO_LOCK = "Run the pipeline with `kedro run`, and commit dvc.lock and dvc.run.yml."


@dataclass(frozen=True)
class Original:
    """The run that is reproduced.

    Attributes:
        title: As the user named it, for the report.
        name: A name for the folder of the reproduction.
        commit: Full id of the commit with its code; "" for the working tree.
        lock: What DVC recorded for it.
        command: The arguments of `kedro` that made it, e.g. ["run", "--env=smoke"]. None of a revision, whose stages may be
            of several runs: the lock has the options of each.
        requirements: Text of its requirements.lock; "" without one.
        metrics_files: Paths of its metrics, from dvc.yaml.
        stages: The stages in dvc.yaml that the lock has, in order.
        ran: The stages that `command` runs; () if it runs all.
        run_id: Its run in MLflow; "" if none is known.
        facts: What is known of its machine: `compute.*` by stage as "pretraining.precision", and machine-wide facts.
        image: The container image of its pods, by digest; "" if it had none or several.
        packages: The packages that were installed, as lines name==version; "" if unknown.
        patch: Uncommitted changes.
        notes: Sentences that a reader of its numbers must know.
    """

    title: str
    name: str
    commit: str
    lock: Lock
    command: tuple[str, ...] | None
    requirements: str = ""
    metrics_files: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    ran: tuple[str, ...] = ()
    run_id: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    image: str = ""
    packages: str = ""
    patch: bytes = b""
    notes: tuple[str, ...] = ()
    lock_md5: str = ""


def find_original(project: Path, reference: str | None, in_place: bool = False) -> Original:
    """Return the run that a user names.

    Args:
        project: The project.
        reference: A git revision, the id of an MLflow run, or a model version; None means HEAD.
        in_place: None means the working tree instead.

    Raises:
        UserError: Nothing has that name, or it records no results.
    """
    store = _store(project, is_needed=bool(reference) and not git.commit_of(project, reference or ""))
    if reference is None and in_place:
        return _with_run(from_working_tree(project), store)
    wanted = reference or "HEAD"
    if not recorded.looks_like_model(wanted) or git.commit_of(project, wanted):
        if found := from_revision(project, wanted):
            return _with_run(found, store)
        if not recorded.RUN_ID.fullmatch(wanted):
            raise UserError(
                f"{wanted!r} is no commit, branch or tag of {project}, no id of an MLflow run and no model version.",
                "Give one that `git log` shows, or a run or model (models:/name/3) that `make ui` shows.",
            )
    if store is None:
        raise UserError(
            f"{wanted!r} is not known to git, and no runs are recorded here.",
            "Name the MLflow server with MLFLOW_TRACKING_URI, or give a git revision.",
        )
    return from_run(project, store, wanted)


def from_working_tree(project: Path) -> Original:
    """Return what the files of the working tree record. Raises UserError if there is no dvc.lock."""
    return _original("the working tree", "working-tree", "", lambda path: _read(project / path))


def from_revision(project: Path, revision: str) -> Original | None:
    """Return what a commit, branch or tag records; None if git knows no such revision.

    Raises:
        UserError: The commit has no dvc.lock, or it is damaged.
    """
    commit = git.commit_of(project, revision)
    if commit is None:
        return None
    title = revision if commit.startswith(revision) else f"{revision} ({commit[:12]})"
    return _original(title, commit[:12], commit, lambda path: git.read(project, commit, path))


def from_run(project: Path, store: TrackingStore, reference: str) -> Original:
    """Return what an MLflow run, or the run of a model version, records.

    Raises:
        UserError: There is no such run, or its code, lock or changes are not known.
    """
    run = recorded.find_run(store, reference)
    tags = run.data.tags
    commit = git.commit_of(project, tags.get(names.COMMIT, "unknown"))
    if commit is None:
        raise UserError(
            f"The commit {tags.get(names.COMMIT, 'unknown')} of MLflow run {run.info.run_id} is not in this repository.",
            "Run `git fetch` with the branch that has it.",
        )
    lock, arguments = recorded.lock_of(store, run, project), kedro_arguments(tags.get(names.COMMAND, ""))
    title = f"MLflow run {run.info.run_id}" + (f" of {reference}" if reference != run.info.run_id else "")

    def read(path: str) -> bytes | None:
        return lock if path == LOCK_FILE else git.read(project, commit, path)

    base = _original(title, f"run-{run.info.run_id[:12]}", commit, read)
    found = replace(base, command=tuple(arguments), ran=_pipelines(arguments), patch=recorded.patch_of(store, run))
    return _described(found, store, run)


def _store(project: Path, is_needed: bool) -> TrackingStore | None:
    """Return the record of runs; for a git revision it only adds facts, so it may be unreachable."""
    try:
        return recorded.open_store(project)
    except UserError as error:
        if is_needed:
            raise
        logger.warning("The record of runs is not used: %s", error)
        return None


def _with_run(original: Original, store: TrackingStore | None) -> Original:
    """Add what MLflow knows of the run that left the lock of a revision, if it is recorded here."""
    run = None if store is None else recorded.run_of_lock(store, original.lock_md5)
    return original if store is None or run is None else _described(original, store, run)


def _described(original: Original, store: TrackingStore, run: Any) -> Original:
    packages = (recorded.artifact(store, run, names.PACKAGES) or b"").decode()
    warnings = run.data.tags.get(names.WARNINGS)
    return replace(
        original,
        run_id=run.info.run_id,
        facts=recorded.facts_of(store.client, run),
        image=recorded.image_of(store.client, run),
        packages=packages,
        notes=(*original.notes, *((warnings,) if warnings else ())),
    )


def kedro_arguments(text: str) -> list[str]:
    """Return the arguments of a recorded `kedro run …`.

    Raises:
        UserError: It is another command.
    """
    words = shlex.split(text)
    if words[:2] != ["kedro", "run"]:
        raise UserError(
            f"The recorded command is {text!r}; only `kedro run` can be repeated.", "Give the git revision instead."
        )
    return words[1:]


def with_pipelines(arguments: list[str], stages: tuple[str, ...]) -> list[str]:
    """Return the arguments of a run with its pipelines replaced."""
    kept, skip = [], False
    for word in arguments:
        if skip:
            skip = False
        elif word in ("--pipelines", "--pipeline", "-p"):
            skip = True
        elif not word.startswith(("--pipelines=", "--pipeline=")):
            kept.append(word)
    return [*kept, f"--pipelines={','.join(stages)}"]


def _pipelines(arguments: list[str]) -> tuple[str, ...]:
    """Return the pipelines that the arguments of a run select; () for the whole."""
    for position, word in enumerate(arguments):
        option, separator, value = word.partition("=")
        if option in ("--pipelines", "--pipeline", "-p"):
            text = value if separator else arguments[position + 1]
            return () if text == "__default__" else tuple(text.split(","))
    return ()


def _original(title: str, name: str, commit: str, read: Callable[[str], bytes | None]) -> Original:
    where = f"{LOCK_FILE} of {title}"
    content, pipeline = read(LOCK_FILE), read("dvc.yaml")
    if content is None or pipeline is None:
        missing = LOCK_FILE if content is None else "dvc.yaml"
        raise UserError(f"{title[0].upper()}{title[1:]} has no {missing}, so no result is recorded there.", NO_LOCK)
    lock = Lock.parse(content, where)
    table = _yaml(pipeline)
    order = list(table.get("stages") or {})
    flags = tuple(shlex.split(str(_yaml(read(RUN_FILE) or b"").get("flags") or "")))
    return Original(
        title,
        name,
        commit,
        lock,
        None,
        (read(REQUIREMENTS) or b"").decode(),
        tuple(next(iter(entry)) if isinstance(entry, dict) else str(entry) for entry in table.get("metrics") or ()),
        tuple(name for name in order if name in lock.stages),
        notes=tuple(_other_options(lock, flags)),
        lock_md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
    )


def _other_options(lock: Lock, flags: tuple[str, ...]) -> Iterator[str]:
    """Yield a sentence about the stages that were made with other options than dvc.run.yml has."""
    by_options: dict[tuple[str, ...], list[str]] = {}
    for stage in lock.stages.values():
        if stage.options is not None and stage.options != flags:
            by_options.setdefault(stage.options, []).append(stage.name)
    for options, stages in by_options.items():
        given = shlex.join(options) or "no options"
        yield f"dvc.lock has {', '.join(stages)} with {given}; {RUN_FILE} has {shlex.join(flags) or 'no options'}."


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _yaml(content: bytes) -> dict[str, Any]:
    values = yaml.safe_load(content)
    return values if isinstance(values, dict) else {}
