"""What each stage was last made from: a file beside the results, written by the runs; else what dvc.lock has.

The file is local and no output of a stage: it holds times, and a clone that pulls the results does without.
"""

import json
import logging
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from fourfold_ops.atomic import locked, write_whole
from fourfold_ops.planning.layout import Stage
from fourfold_ops.secrets import redacted

logger = logging.getLogger(__name__)
RECORDS_FILE = "stages.json"  # in the data folder
MAX_OLDER = 5  # records of a stage from before: what is kept aside can return
LOCK_FILE = "dvc.lock"


@dataclass(frozen=True)
class Record:
    """What a stage was made from, and what it took.

    Attributes:
        parameters: Its sections of the parameters, as the configuration gave them.
        code: Digest of every module in its reach, by dotted name; empty if unknown.
        files: MD5 of the files and folders of code that dvc.lock lists, by path; only where `code` is unknown.
        inputs: Digest of every input by path, see `contents.digest`; empty if unknown.
        outside: Digest of what was read from outside the project, by name.
        outputs: Digest of every output by path, see `contents.digest`.
        claims: Digest of the fingerprint of every claimed folder, by path relative to the project.
        ended_ns: When it had written its results, in nanoseconds since 1970; 0 if unknown.
        seconds: What making the results took; a run that only finds them done does not count.
        peak_bytes: The largest memory of the process until then.
    """

    parameters: dict[str, Any]
    code: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    outside: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    claims: dict[str, str] = field(default_factory=dict)
    ended_ns: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0


@cache  # building it takes longer than the import of this module
def _table() -> TypeAdapter[dict[str, list[Record]]]:
    return TypeAdapter(dict[str, list[Record]])


def read_records(data: Path) -> dict[str, list[Record]]:
    """Return the records of each stage, the newest first; a damaged file counts as absent: the next run replaces it."""
    path = data / RECORDS_FILE
    if not path.is_file():
        return {}
    try:
        return _table().validate_json(path.read_bytes())
    except (OSError, ValidationError):
        logger.warning("%s is not a table of stages; it starts empty again.", path)
        return {}


def write_record(data: Path, stage: str, record: Record) -> None:
    """Add the newest record of a stage. If its results are those of an older one, what making them took stays as it was."""
    with locked(data):
        table = read_records(data)
        before = table.get(stage, [])
        same = next((old for old in before if _result_of(old) == _result_of(record)), record)
        record = replace(record, seconds=max(same.seconds, record.seconds), peak_bytes=max(same.peak_bytes, record.peak_bytes))
        others = [old for old in before if _result_of(old) != _result_of(record)]
        table[stage] = [record, *others[:MAX_OLDER]]
        values = {name: [asdict(one) for one in records] for name, records in sorted(table.items())}
        write_whole(data / RECORDS_FILE, (json.dumps(values, indent=1) + "\n").encode())


def _result_of(record: Record) -> Any:
    return record.claims or record.parameters, record.inputs, record.code


def sections_of(parameters: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    """Return the sections of the parameters that a stage depends on, without secrets: they are written and printed."""
    found: dict[str, Any] = redacted({key: parameters[key] for key in stage.sections if parameters.get(key) is not None})
    return found


def record_of_lock(project_path: Path, stage: Stage) -> Record | None:
    """Return what dvc.lock knows of a stage: its parameters, its code by packages, and whether its inputs are those of today.

    An input that the lock has with another content than the stage that makes it counts as unknown content.
    """
    table = _lock(project_path)
    entry = table.get(stage.name)
    if not isinstance(entry, dict) or not entry.get("outs"):
        return None
    made = {out["path"]: out.get("md5") for one in table.values() for out in one.get("outs") or ()}
    stale = {dep["path"]: "other" for dep in entry.get("deps") or () if made.get(dep["path"], dep.get("md5")) != dep.get("md5")}
    known = {dep["path"]: str(dep.get("md5")) for dep in entry.get("deps") or ()}
    return Record(
        parameters=_parameters(entry, stage),
        files={path: known[path] for path in stage.code if path in known},
        inputs={path: stale[path] for path in stage.inputs if path in stale},
    )


def _lock(project_path: Path) -> dict[str, Any]:
    path = project_path / LOCK_FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    table = content.get("stages") if isinstance(content, dict) else None
    return table if isinstance(table, dict) else {}


def _parameters(entry: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Merge the sections of all files in the order of dvc.yaml, and the `--params` of the command."""
    from omegaconf import OmegaConf

    files = entry.get("params") or {}
    tables = [{key: files[name][key] for key in stage.sections if key in files[name]} for name in files]
    values = OmegaConf.merge(*tables, _options(str(entry.get("cmd", ""))))
    found: Any = OmegaConf.to_container(values)
    return sections_of(found, stage)


def _options(command: str) -> Any:
    """Return the values of `--params=` of a recorded command."""
    from omegaconf import OmegaConf

    words = [word for word in shlex.split(command) if word.startswith("--params=")] if "--params" in command else []
    return OmegaConf.from_dotlist(words[0].removeprefix("--params=").split(",")) if words else OmegaConf.create()
