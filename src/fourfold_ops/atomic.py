"""Files that are either whole or absent."""

import hashlib
import os
import socket
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name beside `path`, flush it to disk, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # in containers that share a volume every process may have the same id
    temporary = path.with_name(f".partial-{socket.gethostname()}-{os.getpid()}-{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def digest_of(paths: list[Path], root: Path) -> str:
    """Return the hex SHA-256 over the names (relative to `root`) and contents of files; a missing one counts as such."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(os.path.relpath(path, root).encode() + b"\0")
        if path.is_file():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        else:
            digest.update(b"absent")
    return digest.hexdigest()
