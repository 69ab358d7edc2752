"""Shards on any file system that fsspec knows (`s3://`, `gs://`, `memory://`, ...), read through the few verbs they need.

For many readers on one machine put fsspec's cache in front: `filecache::s3://bucket/tokens` fetches each shard once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Place(Protocol):
    """What reading shards asks of a path: the part of `pathlib.Path` that `RemotePath` has as well."""

    @property
    def name(self) -> str:
        """The last part."""

    @property
    def parent(self) -> "Place":
        """The folder it lies in."""

    def __truediv__(self, part: str) -> "Place": ...

    def exists(self) -> bool:
        """Whether there is a file or a folder."""

    def read_bytes(self) -> bytes:
        """Return the content; raises OSError when there is none."""

    def read_text(self, encoding: str) -> str:
        """Return the content as text."""

    def glob(self, pattern: str) -> "Iterator[Any]":
        """Yield what lies below and fits a pattern."""


@dataclass(frozen=True)
class RemotePath:
    """A URL that behaves like a `Path` to whoever reads. `path` is what the file system itself calls it."""

    filesystem: Any  # fsspec.AbstractFileSystem
    path: str
    protocol: str

    @classmethod
    def of(cls, url: str) -> "RemotePath":
        """Return the place that a URL names; raises ValueError that says what is missing when its protocol cannot be used."""
        import fsspec

        try:
            filesystem, path = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ValueError(f"{url} cannot be opened: {error}. Install fsspec's package for it (s3fs, gcsfs, ...).") from error
        return cls(filesystem, path.rstrip("/"), url.partition("://")[0])

    def __str__(self) -> str:
        return f"{self.protocol}://{self.path.lstrip('/')}"

    def __truediv__(self, part: str) -> "RemotePath":
        return RemotePath(self.filesystem, f"{self.path}/{part}", self.protocol)

    @property
    def name(self) -> str:
        """The last part."""
        return self.path.rpartition("/")[2]

    @property
    def parent(self) -> "RemotePath":
        """The folder it lies in."""
        return RemotePath(self.filesystem, self.path.rpartition("/")[0], self.protocol)

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        return bool(self.filesystem.exists(self.path))

    def read_bytes(self) -> bytes:
        """Return the content; raises OSError when there is none."""
        return bytes(self.filesystem.cat_file(self.path))

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the content as text."""
        return self.read_bytes().decode(encoding)

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """Yield what lies below and fits a pattern."""
        for path in self.filesystem.glob(f"{self.path}/{pattern}"):
            yield RemotePath(self.filesystem, str(path), self.protocol)


def place(root: "Place | str") -> Any:
    """Return a `Path` for a local folder, a `RemotePath` for a URL."""
    return (
        RemotePath.of(root)
        if isinstance(root, str) and "://" in root
        else root
        if isinstance(root, RemotePath)
        else Path(str(root))
    )


def version(path: Any) -> str:
    """Return what changes when a file is rewritten: time and size of a local one, what the store says of another."""
    if isinstance(path, RemotePath):
        return str(path.filesystem.ukey(path.path))
    status = path.stat()
    return f"{status.st_mtime_ns} {status.st_size}"
