"""What the last whole run of a project left behind: if everything is still so, the next run has nothing to do."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fourfold_ops.atomic import digest_of, write_whole
from fourfold_ops.planning import contents
from fourfold_ops.planning.layout import read_stages
from fourfold_ops.planning.project import PlannedProject
from fourfold_ops.versioning.repository import digest_of_code

logger = logging.getLogger(__name__)
LAST_RUN_FILE = "last_run.json"  # in the data folder; local, and no output of a stage
SPECIAL = re.compile(r"[*?\[{]")  # starts the part of a path that is a pattern
RECORDED = ("dvc.yaml", "dvc.lock", "dvc.run.yml")


@dataclass(frozen=True)
class LastRun:
    """A whole run that succeeded and is recorded in MLflow and in dvc.lock.

    Attributes:
        run_id: The parent run in MLflow.
        project: See `project_digest`.
        inputs: See `inputs_digest`.
        results: See `results_digest`.
        makers: The stage that writes a data set, by its name in the catalog.
        ended_ns: When everything was written, in nanoseconds since 1970.
    """

    run_id: str
    project: str
    inputs: str
    results: str
    makers: dict[str, str]
    ended_ns: int

    def write(self, data: Path) -> None:
        """Write it into the data folder."""
        write_whole(data / LAST_RUN_FILE, (json.dumps(asdict(self), indent=1) + "\n").encode())

    def again(self, run_id: str) -> "LastRun":
        """Return the record of a run that repeated this one and changed nothing."""
        return replace(self, run_id=run_id)

    def is_intact(self, project_path: Path, planned: PlannedProject, parameters: Mapping[str, Any]) -> bool:
        """Return whether a run with these parameters finds everything as this run left it, by digests and times of files."""
        if reads_addresses(planned, parameters) or inputs_digest(project_path, planned, parameters) != self.inputs:
            return False
        outputs = [project_path / out for stage in read_stages(project_path) for out in stage.outputs]
        touched = any(contents.changed_since(output, self.ended_ns) for output in outputs)
        return not touched and results_digest(project_path) == self.results and project_digest(project_path) == self.project


def read_last_run(data: Path) -> LastRun | None:
    """Return the last whole run; None if the latest run was no such run, or the file is damaged."""
    path = data / LAST_RUN_FILE
    try:
        return TypeAdapter(LastRun).validate_json(path.read_bytes()) if path.is_file() else None
    except (OSError, ValidationError):
        logger.debug("%s cannot be read; the next run writes it again.", path, exc_info=True)
        return None


def forget_last_run(data: Path) -> None:
    """Remove the record, before a run changes anything."""
    (data / LAST_RUN_FILE).unlink(missing_ok=True)


def project_digest(project_path: Path) -> str:
    """Return a digest of everything but data that decides what a run does and records.

    That is the code of the stages, all of conf/ (also conf/local), and what DVC has in files of the project.
    """
    files = [project_path / name for name in RECORDED] + list(_files(project_path / "conf/local"))
    return digest_of_code(project_path) + digest_of([path for path in files if path.is_file()], project_path)


def results_digest(project_path: Path) -> str:
    """Return a digest of the names and sizes of all results; times tell whether the bytes of one were touched."""
    outputs = [out for stage in read_stages(project_path) for out in stage.outputs]
    text = json.dumps({out: contents.digest(project_path / out) for out in outputs})
    return hashlib.sha256(text.encode()).hexdigest()


def inputs_digest(project_path: Path, planned: PlannedProject, parameters: Mapping[str, Any]) -> str:
    """Return a digest of the parameters, and of all files that they name: names, sizes and times.

    What `planned` says that a run reads from outside is included, and so is whatever else exists at a path or pattern that is
    the value of a parameter, e.g. weights, folders of a filter, or a source among several.
    """
    places = {name: project_path / place for name, place in planned.outside(parameters).items() if place}
    places |= {text: place for text in _texts(parameters) if (place := _place(project_path, text)) is not None}
    found = {name: contents.outside_digest(place) for name, place in places.items()}
    text = json.dumps([parameters, {name: str(place) for name, place in places.items()}, found], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def reads_addresses(planned: PlannedProject, parameters: Mapping[str, Any]) -> bool:
    """Return whether a run may read something behind an address, e.g. a bucket: only its stages can tell what changed there."""
    return any("://" in text for text in [*_texts(parameters), *filter(None, planned.outside(parameters).values())])


def _texts(value: Any) -> Iterable[str]:
    """Yield all strings in parameters."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(one)


def _place(project_path: Path, text: str) -> Path | None:
    """Return what exists at a path, or the folder in which a pattern starts; None for other texts."""
    start = SPECIAL.split(text, maxsplit=1)[0]
    if start != text:
        start = start.rpartition("/")[0]
    try:
        place = project_path / os.path.expanduser(start)  # noqa: PTH111  Path would raise RuntimeError for an unknown user
        return place if start and place.exists() and not project_path.is_relative_to(place) else None
    except (OSError, ValueError):  # too long for a path, or with a null byte
        return None


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
