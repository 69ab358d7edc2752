"""Files that are either whole or absent, and folders that belong to one fingerprint of inputs and settings.

Everything that is written goes through `atomic_path`: a temporary name beside the target, fsync, rename. A folder of
resumable work is first *claimed* for a fingerprint: what an interrupted run of the same work left is kept and continued;
what another configuration left is cleared.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

logger = logging.getLogger(__name__)

FINGERPRINT_FILE = "fingerprint.json"
PARTIAL_MARK = ".partial-"  # a name with this in it is never read
LOCK_FILE = f"{PARTIAL_MARK}claim"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename, on any error remove it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{PARTIAL_MARK}{os.getpid()}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is whole or absent."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write JSON (sorted keys, so equal values give equal bytes) that is whole or absent."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON; raises ValueError that names the file when it is not valid."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Delete it and run the step that writes it again.") from error


def sha256_file(path: Path) -> str:
    """Return the hex SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def source_digest() -> str:
    """Return the SHA-256 over every source file of this package: changed code never reuses the work of older code."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def fingerprint(**parts: Any) -> str:
    """Return the SHA-256 that names a piece of work: code, settings (pydantic or JSON values) and digests of its inputs."""
    plain = {k: v.model_dump(mode="json") if isinstance(v, BaseModel) else v for k, v in parts.items()}
    text = json.dumps({"source": source_digest(), **plain}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def claim(folder: Path, name: str, shared: bool = False) -> bool:
    """Make `folder` belong to the work named by fingerprint `name`.

    Returns True when it already did, so that whole files in it may be used; otherwise clears it and returns False.
    Left-over temporary files are removed in both cases, unless the work is `shared`: then other processes, perhaps on other
    machines, do their parts of it in the same folder at the same time, and the one that comes first clears it for all.
    """
    with _locked(folder) if shared else nullcontext():
        marker = folder / FINGERPRINT_FILE
        if marker.exists() and read_json(marker)["fingerprint"] == name:
            for partial in () if shared else list(folder.rglob(f"{PARTIAL_MARK}*")):
                shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
            return True
        there = [child for child in folder.iterdir() if not shared or child.name != LOCK_FILE] if folder.exists() else []
        if there:
            logger.info("%s holds the work of other settings or code: starting it afresh.", folder)
            marker.unlink(missing_ok=True)  # first, so that a half-cleared folder is never taken for a whole one
        for child in there:
            if child.is_dir():
                shutil.rmtree(child)
            elif child != marker:
                child.unlink()
        write_json(marker, {"fingerprint": name})
        return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on `folder` that dies with its process; it needs a file system with locks (NFS 4, CephFS, any local one)."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
