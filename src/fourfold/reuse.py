"""Folders of resumable work: each belongs to one fingerprint, and what another fingerprint made is kept aside.

A function that works for minutes or days first claims its folder:

    claim(folder, fingerprint(__name__, config=config, seed=seed, inputs={"shards": shards.digest()}))

`fingerprint.json` in the folder then records what the content was made from: parameters, digests of the inputs, and a digest of
every module that the calling module can reach. If an interrupted run left the same fingerprint, whole files are kept and the
rest is made. If anything differs, the folder moves to `.superseded/` beside it, and one log line names the difference. Undoing
the change and running again moves it back.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel

from fourfold.source_code import module_digests, modules_of
from fourfold.storage import PARTIAL_MARK, read_json, write_json

logger = logging.getLogger(__name__)

FINGERPRINT_FILE = "fingerprint.json"
SUPERSEDED_FOLDER = ".superseded"  # listed in .dvcignore: DVC neither stores nor compares it
KEEP_VARIABLE = "FOURFOLD_KEEP_SUPERSEDED"  # how many superseded results to keep of each folder; `kedro run --fresh` sets 0
KEEP_DEFAULT = 1
SHORT = 8  # hex digits of a digest in names and messages
MAX_CHANGES = 5  # of one kind, in a message


@dataclass(frozen=True)
class Fingerprint:
    """What a folder of results was made from. Two equal fingerprints stand for equal results."""

    parameters: dict[str, Any]  # JSON values
    inputs: dict[str, str]  # digests by name
    modules: dict[str, str]  # digests by dotted name

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of all of it."""
        content = {"parameters": self.parameters, "inputs": self.inputs, "modules": self.modules}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """Return the content of `fingerprint.json`."""
        return {
            "fingerprint": self.digest,
            "parameters": self.parameters,
            "inputs": self.inputs,
            "modules": self.modules,
        }

    def changes_since(self, old: Mapping[str, Any]) -> str:
        """Describe what differs from an older `fingerprint.json`: parameters with both values, inputs, modules."""
        if "modules" not in old:
            return "its fingerprint has no details, so it is from an older version"
        kinds = [
            _differences("parameter", _flat(old["parameters"]), _flat(self.parameters), with_values=True),
            _differences("input", old["inputs"], self.inputs, with_values=False),
            _differences("module", old["modules"], self.modules, with_values=False),
        ]
        return "; ".join(filter(None, kinds))


def fingerprint(
    module: str, *, inputs: Mapping[str, str] | None = None, uses: Iterable[Any] = (), **parameters: Any
) -> Fingerprint:
    """Return the fingerprint of a piece of work.

    Args:
        module: The module that does the work, usually `__name__`: its import closure is the code that counts.
        inputs: Digests of the data that are read, by name.
        uses: Registry entries that are called though `module` does not import them (labelers, tasks, ...): the modules that
            define them count too.
        **parameters: Settings that the result depends on; pydantic values or JSON values.
    """
    plain = {k: v.model_dump(mode="json") if isinstance(v, BaseModel) else v for k, v in parameters.items()}
    # as JSON reads them back (tuples become lists), so that an old file and a new value compare equal
    return Fingerprint(json.loads(json.dumps(plain)), dict(inputs or {}), module_digests([module, *modules_of(uses)]))


def claim(folder: Path, wanted: Fingerprint, shared: bool = False, is_cheap: bool = False) -> bool:
    """Make `folder` belong to the work that `wanted` describes.

    Whatever other work left there moves to `.superseded/` beside the folder, where the newest `$FOURFOLD_KEEP_SUPERSEDED`
    results of the folder are kept (default 1; 0 deletes). A superseded result with the wanted fingerprint moves back.

    Args:
        folder: The folder; created if it is absent.
        wanted: The fingerprint of the work.
        shared: Several processes, perhaps on several machines, do their shares of the work in this folder at the same time.
            The first one claims it for all, and temporary files, which may belong to another process, are left alone.
        is_cheap: The content is made again in seconds: other content is deleted, not kept.

    Returns:
        Whether the folder holds (part of) this work already, so that whole files in it can be used.

    Raises:
        ValueError: `$FOURFOLD_KEEP_SUPERSEDED` is not a number ≥ 0, or the old folder cannot be moved.
    """
    folder = folder.resolve()  # a link to another disk stays, and results stay on that disk
    lock = folder.parent / f"{PARTIAL_MARK}claim-{folder.name}"  # beside the folder, which may be moved while others wait
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock) if shared else nullcontext():
        is_held = _content(folder) == wanted.digest
        if not is_held:
            _supersede(folder, wanted, is_cheap)
            is_held = _restore(folder, wanted)
        is_changed = is_held and read_fingerprint(folder / FINGERPRINT_FILE) != wanted.as_json()
        if is_changed:
            logger.warning("%s changed after it was written. Writing it again.", folder / FINGERPRINT_FILE)
        if is_changed or not is_held:
            write_json(folder / FINGERPRINT_FILE, wanted.as_json())
    if not shared:
        for partial in list(folder.rglob(f"{PARTIAL_MARK}*")):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
        lock.unlink(missing_ok=True)  # of shares that were done earlier
    return is_held


def renew_fingerprint(folder: Path, wanted: Fingerprint) -> None:
    """Write the fingerprint of a folder again if it was lost or changed; the content is known to be that of `wanted`."""
    marker = folder / FINGERPRINT_FILE
    if read_fingerprint(marker) != wanted.as_json():
        logger.warning("%s was lost or changed. Writing it again.", marker)
        write_json(marker, wanted.as_json())


def _content(folder: Path) -> str | None:
    """Return the digest of the fingerprint whose work a folder holds; None when it has no fingerprint that can be read."""
    found = read_fingerprint(folder / FINGERPRINT_FILE)
    return str(found["fingerprint"]) if "fingerprint" in found else None


def read_fingerprint(marker: Path) -> dict[str, Any]:
    """Return the content of a `fingerprint.json`; empty when there is none, or none that can be read."""
    try:
        content = read_json(marker) if marker.is_file() else {}
    except ValueError:
        return {}
    parts = [content.get(name, {}) for name in ("parameters", "inputs", "modules")] if isinstance(content, dict) else [None]
    return content if all(isinstance(part, dict) for part in parts) else {}


def _supersede(folder: Path, wanted: Fingerprint, is_cheap: bool) -> None:
    """Move the content of `folder` aside, or delete it if none is kept; log what changed."""
    children = [child for child in folder.iterdir() if not child.name.startswith(PARTIAL_MARK)] if folder.is_dir() else []
    if not {child.name for child in children} - {FINGERPRINT_FILE}:
        return  # nothing was made yet
    keep, marker = 0 if is_cheap else _keep(), folder / FINGERPRINT_FILE
    old = read_fingerprint(marker)
    unknown = "its fingerprint cannot be read" if marker.is_file() else "it has no fingerprint"
    changes = wanted.changes_since(old) if "fingerprint" in old else f"{unknown}, so what it was made from is unknown"
    # 1) Move it aside under a name that tells it from other results of this folder, or delete it
    aside = folder.parent / SUPERSEDED_FOLDER / f"{folder.name}-{str(old.get('fingerprint', 'unknown'))[:SHORT]}"
    try:
        if keep:
            _remove(aside)
            aside.parent.mkdir(exist_ok=True)
            folder.rename(aside)
            os.utime(aside)  # when it was superseded: decides which results are kept
        else:
            _remove(folder)
    except OSError as error:  # e.g. the folder is a mount point
        raise ValueError(
            f"{folder} holds the result of other settings, data or code ({changes}) and cannot be moved to {aside} "
            f"({error.strerror}). Move or delete its content, then run again."
        ) from error
    # 2) Keep the newest only; the wanted one is spared, since it is about to move back
    others = [path for path in _superseded(folder) if _content(path) != wanted.digest]
    removed = others[: max(0, len(others) - keep)]
    for path in [*removed, *aside.parent.glob(f"{PARTIAL_MARK}removed-{folder.name}-*")]:  # the latter: by a killed process
        _remove(path)
    # 3) Report it
    kept = f"kept in {_shown(aside)}; to get it back, undo the change and run again" if keep else "deleted"
    if removed:
        kept += f". Older ones are deleted ({KEEP_VARIABLE}={keep}): {', '.join(_shown(path) for path in removed)}"
    level = logging.DEBUG if is_cheap else logging.WARNING
    logger.log(level, "%s no longer matches: %s. The old result is %s.", _shown(folder), changes, kept)


def _restore(folder: Path, wanted: Fingerprint) -> bool:
    """Move a superseded result with the wanted fingerprint back to `folder`; return whether there is one."""
    match = next((path for path in _superseded(folder) if _content(path) == wanted.digest), None)
    if match is None:
        return False
    _remove(folder)  # it is empty, or holds a fingerprint and temporary files
    match.rename(folder)
    logger.info("%s: restored the earlier result of the same settings, data and code.", _shown(folder))
    return True


def _superseded(folder: Path) -> list[Path]:
    """Return the superseded results of a folder, the oldest first."""
    aside = folder.parent / SUPERSEDED_FOLDER
    found = [path for path in aside.iterdir() if path.name.rpartition("-")[0] == folder.name] if aside.is_dir() else []
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def _remove(folder: Path) -> None:
    """Delete a folder; if the process is killed meanwhile, nothing is left that could be taken for a result."""
    doomed = folder.with_name(f"{PARTIAL_MARK}removed-{folder.name}")
    if doomed.exists():  # what a killed process left
        shutil.rmtree(doomed)
    if folder.exists():
        folder.rename(doomed)
        shutil.rmtree(doomed)


def _keep() -> int:
    text = os.environ.get(KEEP_VARIABLE, str(KEEP_DEFAULT))
    if not text.isdecimal():
        raise ValueError(f"{KEEP_VARIABLE} is {text!r}; allowed: a number ≥ 0 of superseded results to keep of each folder.")
    return int(text)


def _differences(kind: str, old: Mapping[str, Any], new: Mapping[str, Any], with_values: bool) -> str:
    """Describe the keys whose values differ: `parameter seed: 0 → 1`, `modules a, b changed, c new`."""
    words = []
    for key in sorted({*old, *new}):
        if old.get(key) == new.get(key) and (key in old) == (key in new):
            continue
        if with_values:
            before, after = (_short(values[key]) if key in values else "unset" for values in (old, new))
            words.append(f"{key}: {before} → {after}")
        elif key in old and key in new:
            words.append(f"{key} changed")
        else:
            words.append(f"{key} {'added' if key in new else 'removed'}")
    if not words:
        return ""
    rest = f" and {len(words) - MAX_CHANGES} more" if len(words) > MAX_CHANGES else ""
    return f"{kind}{'s' if len(words) > 1 else ''} {', '.join(words[:MAX_CHANGES])}{rest}"


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, with dotted keys."""
    if not isinstance(values, dict) or (not values and prefix):
        return {prefix: values}
    return {key: leaf for k, v in values.items() for key, leaf in _flat(v, f"{prefix}.{k}" if prefix else str(k)).items()}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
