"""What would make a run fail, found in seconds and without changing anything."""

import configparser
import os
import shutil
import socket
import tempfile
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fourfold_ops import data_lock
from fourfold_ops.errors import EXIT_CONFIGURATION, UserError, exit_code, one_line
from fourfold_ops.planning.layout import read_stages
from fourfold_ops.planning.plan import DATA, Present, StagePlan
from fourfold_ops.planning.project import Storage
from fourfold_ops.tracking import offline
from fourfold_ops.tracking.server import check_answers
from fourfold_ops.tracking.store import SQLITE, VARIABLE, absolute_uri

SECONDS = 3.0  # for a remote to accept a connection
PORTS = {"http": 80, "https": 443, "ssh": 22, "s3": 443, "gs": 443, "azure": 443}
CLOUD_HOSTS = {"s3": "s3.amazonaws.com", "gs": "storage.googleapis.com"}


@dataclass(frozen=True)
class Problem:
    """Why a run could not work: one sentence with the remedy, and the exit code of the run."""

    text: str
    exit_code: int = EXIT_CONFIGURATION


def find_problems(present: Present, plans: Sequence[StagePlan], tracking: Mapping[str, Any]) -> list[Problem]:
    """Return what would end the run: another run, inputs that nobody makes, a missing source, a server that does not answer."""
    running = [plan.name for plan in plans if plan.runs]
    found = [Problem(text) for text in _missing_inputs(present, running, plans)]
    for check in _checks(present, [plan.name for plan in plans], tracking):  # a run calls every stage, also one that is done
        try:
            check()
        except (UserError, ValueError) as error:
            found.append(Problem(one_line(error), exit_code(error)))
    return sorted(found, key=lambda problem: problem.exit_code)  # another run first: the rest may change when it has ended


def require_start(present: Present, stages: Sequence[str], tracking: Mapping[str, Any]) -> None:
    """Check what a run needs from outside before its libraries are loaded.

    Raises:
        BusyError: Another run works on the data.
        UserError: A source is missing, or the tracking server does not answer.
    """
    for check in _checks(present, stages, tracking):
        try:
            check()
        except ValueError as error:
            raise UserError(str(error)) from error


def _checks(present: Present, stages: Sequence[str], tracking: Mapping[str, Any]) -> list[Callable[[], None]]:
    return [
        lambda: _check_lock(present.project_path / DATA),
        lambda: present.project.check(stages, present.parameters),
        lambda: _check_tracking(present.project_path, tracking),
    ]


def _check_lock(data: Path) -> None:
    if (holder := data_lock.holder(data)) is not None:
        raise data_lock.BusyError(*data_lock.describe(data, holder))


def _missing_inputs(present: Present, running: list[str], plans: Sequence[StagePlan]) -> list[str]:
    """Return a sentence for each stage with inputs that are absent and that no planned stage makes."""
    table = {stage.name: stage for stage in read_stages(present.project_path)}
    makers = {out: stage.name for stage in table.values() for out in stage.outputs}
    planned = {plan.name for plan in plans}
    sentences = []
    for name in running:
        needed = [path for path in table[name].inputs if makers.get(path) not in planned]
        if absent := [path for path in needed if not _is_there(present.project_path / path)]:
            before, paths = ", ".join(dict.fromkeys(makers[path] for path in absent)), " ".join(absent)
            sentences.append(
                f"{name} reads {', '.join(absent)}, and nothing is there. Run {before} too, or get the results with "
                f"`dvc pull {paths}`."
            )
    return sentences


def _is_there(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _check_tracking(project_path: Path, tracking: Mapping[str, Any]) -> None:
    uri = absolute_uri(os.environ.get(VARIABLE) or str(tracking.get("uri", "")), project_path)
    if not uri.startswith(SQLITE) and not offline.is_requested():
        check_answers(uri, VARIABLE if os.environ.get(VARIABLE) else "conf/*/tracking.yml")
        return
    path = uri if uri.startswith(SQLITE) else absolute_uri(offline.URI, project_path)
    folder = Path(path.removeprefix(SQLITE)).parent
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):  # without a name, where the file system allows that
            pass
    except OSError as error:
        raise UserError(f"Cannot write to {existing}: {error.strerror}.", "Free space or give write permission.") from error


def find_notes(present: Present, plans: Sequence[StagePlan]) -> list[str]:
    """Return what the user should know, though the run works: a remote that does not answer, a disk that may be too small."""
    notes = [note for note in (_remote_note(present.project_path), _disk_note(present, plans)) if note]
    return notes


def needed_bytes(present: Present, plans: Sequence[StagePlan]) -> int:
    """Return the bytes that the run adds, if results are as large as last time: the old ones and DVC's copy stay."""
    copies = 2 if (present.project_path / ".dvc").is_dir() else 1
    return copies * sum(plan.size for plan in plans if plan.makes_again)


def free_bytes(project_path: Path) -> int:
    """Return the free bytes of the disk of the data folder."""
    data = project_path / DATA
    return shutil.disk_usage(data if data.is_dir() else project_path).free


def _disk_note(present: Present, plans: Sequence[StagePlan]) -> str:
    needed, free = needed_bytes(present, plans), free_bytes(present.project_path)
    return f"The disk may be too small: about {readable(needed)} needed, {readable(free)} free." if needed > free else ""


def storage_note(present: Present, plans: Sequence[StagePlan], storage: Storage | None) -> str:
    """Return a sentence if the disk is too small for the data, even if it replaces all that its stages have written."""
    if storage is None or not any(plan.makes_again and plan.name in storage.stages for plan in plans):
        return ""
    copies = 2 if (present.project_path / ".dvc").is_dir() else 1
    available = free_bytes(present.project_path) + copies * sum(plan.size for plan in plans if plan.name in storage.stages)
    if storage.needed <= available:
        return ""
    return (
        f"The disk is too small for the configured data: about {readable(storage.needed)} needed, {readable(available)} free. "
        f"{storage.advice}".rstrip()
    )


def _remote_note(project_path: Path) -> str:
    """Return a sentence about the default remote of DVC if it cannot be reached; a run does not need it, `dvc push` does."""
    parser = configparser.ConfigParser(strict=False)
    parser.read([project_path / ".dvc/config", project_path / ".dvc/config.local"], encoding="utf-8")
    name = parser.get("core", "remote", fallback="")
    section = next((one for one in parser.sections() if name and one.strip("'") == f'remote "{name}"'), None)
    if section is None:
        return ""
    url = parser.get(section, "url", fallback="")
    problem = _unreachable(url, parser.get(section, "endpointurl", fallback=""), project_path)
    return (
        f"DVC remote {name!r} ({url}) cannot be reached: {problem}. The run works; `dvc push` and `dvc pull` do not."
        if (problem)
        else ""
    )


def _unreachable(url: str, endpoint: str, project_path: Path) -> str:
    """Return why a remote cannot be reached; "" if it answers, or if its address does not tell where it is."""
    if "://" not in url:
        folder = project_path / ".dvc" / Path(url).expanduser()
        return "" if folder.is_dir() else "the folder does not exist"
    parts = urllib.parse.urlsplit(endpoint or url)
    host = parts.hostname if endpoint or parts.scheme in ("http", "https", "ssh") else CLOUD_HOSTS.get(parts.scheme)
    if not host:
        return ""
    try:
        with socket.create_connection((host, parts.port or PORTS.get(parts.scheme, 443)), timeout=SECONDS):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def readable(count: float) -> str:
    """Return a number of bytes with its unit, e.g. "1.2 GB"."""
    unit = max((unit for unit in range(5) if count >= 1000**unit), default=0)
    return f"{count / 1000**unit:.1f} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}" if unit else f"{count:.0f} B"
