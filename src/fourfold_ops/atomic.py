"""Files that are either whole or absent."""

import hashlib
import os
import secrets
import socket
from pathlib import Path


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
    return path.with_name(f".partial-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


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
