"""Compares code, data from outside and parameters with what a lock recorded."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fourfold_ops.reproduction import git
from fourfold_ops.reproduction.content import Reader
from fourfold_ops.reproduction.lock import Lock
from fourfold_ops.reproduction.outputs import DIFFERENT, MISSING, SAME

NOT_CHECKED = "not checked"
ABSENT = "absent"


@dataclass(frozen=True)
class InputResult:
    """A file or folder that stages read and no stage writes."""

    path: str
    stages: tuple[str, ...]
    status: str
    recorded: str  # MD5
    found: str


@dataclass(frozen=True)
class ParameterChange:
    """A parameter whose value is not the recorded one."""

    file: str
    name: str
    recorded: Any
    found: Any


def compare_inputs(lock: Lock, stages: Iterable[str], root: Path, project: Path) -> list[InputResult]:
    """Hash what stages read and no stage writes: code below `root`, and data files.

    Args:
        lock: What was recorded.
        stages: The stages.
        root: The checkout of the code.
        project: The project in which data lie that git does not track.
    """
    code, data = Reader(root), Reader(project)
    results = []
    for path, (entry, users) in sorted(lock.inputs(stages).items()):
        if "://" in path:
            results.append(InputResult(path, tuple(users), NOT_CHECKED, entry.md5, "a URL"))
            continue
        content = (code if is_code(project, path) else data).content(path)
        found = ABSENT if content is None else content.md5
        status = SAME if found == entry.md5 else MISSING if found == ABSENT else DIFFERENT
        results.append(InputResult(path, tuple(users), status, entry.md5, found))
    return results


def is_code(project: Path, path: str) -> bool:
    """Return whether git versions a path: it is inside the project and not ignored."""
    is_inside = (project / path).resolve().is_relative_to(project.resolve())
    return is_inside and not git.is_ignored(project, path)


def compare_parameters(lock: Lock, stages: Iterable[str], root: Path) -> list[ParameterChange]:
    """Return the parameters of a checkout that differ from those in the lock, each once."""
    found: dict[tuple[str, str], ParameterChange] = {}
    files: dict[str, Any] = {}
    for stage in stages:
        for file, recorded in lock.stages[stage].params.items():
            if file not in files:
                files[file] = _read(root / file)
            for name, value in (recorded or {}).items():
                for change in _differences(file, name, value, _at(files[file], name)):
                    found[file, change.name] = change
    return list(found.values())


def _differences(file: str, name: str, recorded: Any, found: Any) -> list[ParameterChange]:
    if isinstance(recorded, dict) and isinstance(found, dict):
        keys = [*recorded, *(key for key in found if key not in recorded)]
        parts = [_differences(file, f"{name}.{key}", recorded.get(key, ABSENT), found.get(key, ABSENT)) for key in keys]
        return [change for part in parts for change in part]
    is_same = recorded == found and type(recorded) is type(found)
    return [] if is_same else [ParameterChange(file, name, recorded, found)]


def _at(values: Any, name: str) -> Any:
    """Return the value at a dotted name, as DVC reads it."""
    for key in name.split("."):
        if not isinstance(values, dict) or key not in values:
            return ABSENT
        values = values[key]
    return values


def _read(path: Path) -> Any:
    if not path.is_file():
        return {}
    if path.suffix not in (".yml", ".yaml"):
        return {}
    return yaml.safe_load(path.read_text(encoding="utf-8"))
