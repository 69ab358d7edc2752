"""Files that are either whole or absent, and folders that one process at a time changes."""

import fcntl
import hashlib
import logging
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

logger = logging.getLogger(__name__)
PARTIAL_MARK = ".partial-"  # names with this mark are never read as results; fourfold.storage has the same


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name beside `path`, flush it to disk, then rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """Return a name beside `path` that no other writer uses.

    Containers that share a volume often have equal process ids, and restarted pods equal host names: hence host, process and a
    random part.
    """
    return path.with_name(f"{PARTIAL_MARK}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def remove_abandoned(folder: Path) -> int:
    """Remove what killed processes of this machine left under names of `temporary_name`, and return the number of files.

    Files of processes that still run stay, and so do those of other machines, where nobody can tell from here.

    Args:
        folder: Searched with its subfolders; links are not followed, and what cannot be read or removed stays.
    """
    pattern = re.compile(rf"{re.escape(PARTIAL_MARK + socket.gethostname())}-(\d+)-[0-9a-f]{{8}}-")
    removed = 0
    for root, _, names in os.walk(folder):
        for name in names:
            if not (match := pattern.match(name)) or _is_running(int(match[1])):
                continue
            with suppress(OSError):
                (Path(root) / name).unlink()
                removed += 1
    return removed


def digest_of(paths: list[Path], root: Path) -> str:
    """Return the hex SHA-256 over the names (relative to `root`) and contents of files; a missing file counts as absent."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(os.path.relpath(path, root).encode() + b"\0")
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        else:
            digest.update(b"absent")
    return digest.hexdigest()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process, and one thread of it, at a time work inside the block; file systems without locks go without.

    The lock is on the folder itself, and ends with its process.
    """
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


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it runs for another user
        return True
    return True
