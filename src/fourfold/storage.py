"""Files that are either whole or absent.

Everything that is written goes through `atomic_path`: a temporary name beside the target, fsync, rename.
"""

import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL_MARK = ".partial-"  # names with this mark are never read as results


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it, on any error remove it."""
    with scratch_path(path) as temporary:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)


@contextmanager
def scratch_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and remove what is there afterward."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success rename it, on any error remove it.

    Raises:
        ValueError: `path` exists and is not an empty folder.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise ValueError(f"{path} exists. Choose another folder, or delete it.")
    temporary = temporary_name(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def temporary_name(path: Path) -> Path:
    """Return a name beside `path` that no other writer uses.

    Containers that share a volume often have equal process ids, and restarted pods equal host names: hence host, process and a
    random part. `fourfold_ops.atomic` has the same rule (it must not import this package); one test checks both.
    """
    return path.with_name(f"{PARTIAL_MARK}{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file that is whole or absent."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write JSON that is whole or absent; keys are sorted, so equal values give equal bytes."""
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ValueError: The file is not valid JSON; the message names it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Delete it and run the step that writes it again.") from error
