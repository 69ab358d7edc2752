"""Digests of the files of a source: of their names and sizes, or of their content, which is read once for each version.

A version of a file is its size and its time of modification. Times are compared on this machine only and never stored among
results: copies of a source have other times and give equal results.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fourfold.data.ingestion.sources.files import FilesConfig
from fourfold.data.ingestion.sources.source import SourceContext
from fourfold.digests import sha256_file
from fourfold.storage import atomic_path

SHORT = 14  # hex digits, so that the number is below any time
SETTLED_NS = 2_000_000_000  # a file that was modified less than 2 s ago may change again without another time


def digest_and_version(
    root: Path, files: Sequence[Path], config: FilesConfig, context: SourceContext | None
) -> tuple[str, str]:
    """Return the digest of files, which decides whether results are used again, and their version; each file is asked once.

    Args:
        root: the folder of the source.
        files: all files that the source reads, in order.
        config: says what is compared.
        context: where the digests of content that was read before are kept; None: all content is read.

    Returns:
        digest: a SHA-256 over the names, relative to `root`, and the sizes of files; with `digest: content` over their bytes.
            Of an unreadable file, its error counts: reading it will count the loss.
        version: a SHA-256 over names, sizes and times of modification: equal only if no file was touched, on one machine. With
            `digest: content` it is "": every byte is compared, so times tell nothing more.
    """
    digest, version = hashlib.sha256(), hashlib.sha256()
    if config.digest == "content":
        for path, content in _contents(root, files, context.digests if context else None):
            digest.update(_named(root, path) + f" {content}\n".encode())
        return digest.hexdigest(), ""
    for path in files:
        name, found = _named(root, path), _version(path)
        size = found if isinstance(found, str) else found[0]
        digest.update(name + f" {size} bytes\n".encode())
        version.update(name + f" {found}\n".encode())
    return digest.hexdigest(), version.hexdigest()


def _contents(root: Path, files: Sequence[Path], folder: Path | None) -> Iterator[tuple[Path, str]]:
    """Yield each file with the SHA-256 of its content, from the cache where its version is in there."""
    if folder is None:
        yield from ((path, _content(path)) for path in files)
        return
    place = hashlib.sha256(os.fsencode(f"{root.absolute()} {files[0] if files else ''}")).hexdigest()[:16]
    cache = folder / f"{place}.jsonl"
    known = _read_cache(cache)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(cache) as temporary, temporary.open("w", encoding="utf-8") as file:
        now = time.time_ns()
        for path in files:
            name, version = os.fsencode(str(path)).hex(), _version(path)
            content = known.get((name, *version)) if isinstance(version, tuple) else None
            content = content or _content(path)
            if isinstance(version, tuple) and version[1] < now - SETTLED_NS:
                file.write(json.dumps([name, *version, content]) + "\n")
            yield path, content


def _read_cache(cache: Path) -> dict[tuple[str, int, int], str]:
    """Return the known digests by name, size and time; none if the cache is absent or damaged, which costs time only."""
    try:
        with cache.open(encoding="utf-8") as file:
            return {(name, size, modified): content for name, size, modified, content in map(json.loads, file)}
    except (OSError, ValueError, TypeError):
        return {}


def _content(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        return type(error).__name__


def _version(path: Any) -> tuple[int, int] | str:
    """Return size and time of modification in nanoseconds, or the error of a file that cannot be reached."""
    try:
        status = path.stat()
        if isinstance(path, Path):
            return status.st_size, status.st_mtime_ns
        # of a URL: a number from what its store reports, e.g. an ETag
        return status.st_size, int(hashlib.sha256(str(path.fs.ukey(path.path)).encode()).hexdigest()[:SHORT], 16)
    except OSError as error:
        return type(error).__name__


def _named(root: Path, path: Path) -> bytes:
    return os.fsencode(path.relative_to(root).as_posix())
