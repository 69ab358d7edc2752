"""Data on disk without reading all of it: digests of folders, their sizes, and files that changed since a moment."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from fourfold_ops.atomic import PARTIAL_MARK
from fourfold_ops.digests import DIGESTS_FILE
from fourfold_ops.versioning.hashes import md5_of_listing

KEPT_ASIDE = ".superseded"  # results of other settings, data or code; fourfold.reuse has the same name
LENGTH = 16  # hex digits: a folder is compared with an earlier version of itself only


def digest(path: Path) -> str:
    """Return a digest of a file or a folder of results; "" if it is absent or empty.

    Of a folder, names and sizes of all files count, and the bytes of each `digests.json`, which has the SHA-256 of the files
    beside it. So two folders with equal digests hold the same results, and large files are not read.
    """
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()[:LENGTH]
    found = hashlib.sha256()
    names = sorted((os.path.relpath(file, path), file) for file in files(path))
    for name, file in names:
        found.update(f"{name} {file.stat().st_size}\n".encode("utf-8", "surrogateescape"))
        if file.name == DIGESTS_FILE:
            found.update(file.read_bytes())
    return found.hexdigest()[:LENGTH] if names else ""


def size(path: Path) -> int:
    """Return the bytes of a file, or of a folder without what is kept aside."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in files(path))


def changed_since(path: Path, moment_ns: int) -> list[Path]:
    """Return the files that were written, replaced or touched after a moment, in nanoseconds since 1970."""
    return [file for file in files(path) if max(file.stat().st_mtime_ns, file.stat().st_ctime_ns) > moment_ns]


def outside_digest(path: Path) -> str:
    """Return a digest of names, sizes and times of a file or folder from outside; "" if it is absent.

    Its content is not read: that could take hours. Links are followed as far as files.
    """
    found = hashlib.sha256()
    if path.is_file():
        return _version(path, path.name)
    if not path.is_dir():
        return ""
    for file in sorted(path.rglob("*")):
        if file.is_file():
            found.update(_version(file, file.relative_to(path).as_posix()).encode())
    return found.hexdigest()[:LENGTH]


def md5_of_dvc(path: Path) -> str:
    """Return the MD5 of a file or folder of code as dvc.lock has it, without compiled Python; "" if it is absent."""
    if path.is_file():
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    sources = [file for file in files(path) if "__pycache__" not in file.parts and file.suffix != ".pyc"]
    entries = {file.relative_to(path).as_posix(): md5_of_dvc(file) for file in sources}
    return md5_of_listing(entries) if entries else ""


def files(path: Path) -> Iterator[Path]:
    """Yield the files of a result: without temporary ones, hidden folders and what is kept aside."""
    if path.is_file():
        yield path
        return
    for root, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(root) / name for name in names if not name.startswith(PARTIAL_MARK))


def _version(file: Path, name: str) -> str:
    status = file.stat()
    text = f"{name} {status.st_size} {status.st_mtime_ns}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:LENGTH]
