"""Digests: `digests.json` in a folder of results records the SHA-256 of its files, written by the step that made them.

Code that opens a result compares it with its record (`check_digests`), so a file that changed afterward is an error that names
it and never a wrong number. The step that makes the files compares before it keeps one (`is_intact`), so damage is made
again by the next run, with one log line. `fourfold_ops.digests` writes the same format (it must not import this package).
"""

import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fourfold.storage import atomic_path, read_json, write_json

logger = logging.getLogger(__name__)
DIGESTS_FILE = "digests.json"
BEFORE = "~"  # "a~" is the digest of "a" before it is replaced: valid too, should the process be killed meanwhile
RECORD = TypeAdapter(dict[str, str])
SETTLED = 2_000_000_000  # nanoseconds after which a change of a file also changes its times


@contextmanager
def recorded_path(folder: Path, name: str) -> Iterator[Path]:
    """Yield a temporary path; on success record its digest and rename it to `folder / name`.

    A kill at any moment leaves a whole file that agrees with the record.
    """
    before = sha256_file(folder / name) if is_intact(folder, name, remedy="Writing it again.") else None
    with atomic_path(folder / name) as temporary:
        yield temporary
        new = sha256_file(temporary)
        _update(folder, {name: new} | ({name + BEFORE: before} if before and before != new else {}))
    _update(folder, {name: new})


def write_recorded(folder: Path, name: str, content: bytes) -> None:
    """Write a file that is whole or absent, with its digest."""
    with recorded_path(folder, name) as temporary:
        temporary.write_bytes(content)


def write_recorded_json(folder: Path, name: str, value: Any) -> None:
    """Write JSON as `write_json` does, with its digest."""
    with recorded_path(folder, name) as temporary:
        write_json(temporary, value)


def record_digests(folder: Path, *names: str) -> None:
    """Record the SHA-256 of files of a folder, beside those that are recorded already."""
    record_known_digests(folder, {name: sha256_file(folder / name) for name in names})


def record_known_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Record digests by file name as `record_digests` does: those of the bytes that the caller wrote."""
    _update(folder, digests)


def forget_digests(folder: Path, names: Iterable[str]) -> None:
    """Remove the record of files that a step has deleted."""
    if gone := set(names) & set(_readable(folder)):
        _update(folder, {}, gone)


def recorded_digests(folder: Any) -> dict[str, str]:
    """Return the recorded digests of a folder (a `Path` or `UPath`) by file name; none without a record.

    Raises:
        ValueError: the record is not a table of digests.
    """
    path = folder / DIGESTS_FILE
    if not path.is_file():
        return {}
    try:
        return RECORD.validate_python(read_json(path))
    except ValidationError as error:
        raise ValueError(f"{path} is not a table of digests. Delete it and run the step that writes it again.") from error


def check_digests(folder: Path, remedy: str, *names: str) -> dict[str, str]:
    """Compare files of a folder with their recorded digests, and return these.

    Args:
        folder: the folder.
        remedy: what to do about damage, a sentence; it ends the message.
        *names: the files that must be recorded; those that are recorded besides are compared too.

    Raises:
        ValueError: a file is missing, not recorded or changed; the message has both digests.
    """
    record = recorded_digests(folder)
    for name in dict.fromkeys([*names, *(name.removesuffix(BEFORE) for name in record)]):
        if damage := damage_of(folder, name, record):
            raise ValueError(f"{damage} {remedy}")
    return record


def accepted_digests(record: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Return the SHA-256 that a file may have, the newest first; none if it is not recorded."""
    return tuple(record[key] for key in (name, name + BEFORE) if key in record)


def damage_of(folder: Path, name: str, record: dict[str, str]) -> str:
    """Describe how a file differs from its record, with both digests; "" if it is as it was written."""
    path, expected = folder / name, accepted_digests(record, name)
    if not path.is_file():
        return f"{path} is missing{f' (expected SHA-256 {expected[0]}, {DIGESTS_FILE})' if expected else ''}."
    return difference(path, sha256_file(path), expected)


def difference(path: Any, found: str, expected: Sequence[str]) -> str:
    """Describe how the SHA-256 of a file differs from those that it may have, the newest first; "" if it is one of them."""
    if not expected:
        return f"{path} has no digest in {DIGESTS_FILE}, so it cannot be checked."
    if found not in expected:
        return f"{path} changed after it was written: SHA-256 {found}, expected {expected[0]} ({DIGESTS_FILE})."
    return ""


def is_intact(folder: Path, *names: str, remedy: str = "Making it again.") -> bool:
    """Return whether files of resumable work are there as they were recorded.

    One that was damaged is named in a log line and no longer recorded, so that it is made again, whatever happens meanwhile.

    Args:
        folder: the folder.
        *names: the files.
        remedy: what the caller does about damage; it ends the log line.
    """
    record = _readable(folder)
    damages = {name: damage for name in names if (damage := damage_of(folder, name, record))}
    recorded = [name for name in damages if name in record]  # the others were never finished
    for name in recorded:
        logger.warning("%s %s", damages[name], remedy)
    replaced = [name + BEFORE for name in names if name not in damages and sha256_file(folder / name) == record.get(name)]
    forget_digests(folder, [*recorded, *replaced])  # the latter: of a process that was killed after it replaced the file
    return not damages


def sha256_file(path: Any) -> str:
    """Return the hex SHA-256 of a file (a `Path` or `UPath`), read in blocks; a local one is read again only if it changed."""
    if not isinstance(path, Path):
        return _sha256(path)  # most stores know no times that would show every change
    status = path.stat()
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < SETTLED:  # a change could keep these times
        return _sha256(path)
    return _cached_sha256(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


@lru_cache(maxsize=10_000)
def _cached_sha256(path: Path, _version: tuple[int, ...]) -> str:
    return _sha256(path)


def _sha256(path: Any) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _readable(folder: Path) -> dict[str, str]:
    """Return the record of a folder in which a step works; a damaged one counts as empty, so its files are made again."""
    try:
        return recorded_digests(folder)
    except ValueError as error:
        logger.warning("%s Making its files again.", error)
        (folder / DIGESTS_FILE).unlink(missing_ok=True)
        return {}


def _update(folder: Path, new: Mapping[str, str], gone: Iterable[str] = ()) -> None:
    """Add digests to the record, and remove those of the names in `gone`; other processes may do the same."""
    with _locked(folder):
        old = _readable(folder)
        dropped = {*gone, *(name + BEFORE for name in [*gone, *new])}
        updated = {name: digest for name, digest in old.items() if name not in dropped} | dict(new)
        if updated != old:
            write_json(folder / DIGESTS_FILE, updated)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time update the record of a folder; file systems without locks go without."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            logger.debug("%s is on a file system without locks.", folder)
        yield
    finally:
        os.close(descriptor)
