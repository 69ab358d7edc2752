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
    """A URL that behaves like a `Path` to whoever reads."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, part: str) -> "RemotePath":
        return RemotePath(f"{self.url}/{part}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> "RemotePath":
        """The folder it lies in."""
        return RemotePath(self.url.rpartition("/")[0])

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        filesystem, path = self._opened()
        return bool(filesystem.exists(path))

    def read_bytes(self) -> bytes:
        """Return the content; raises OSError when there is none."""
        filesystem, path = self._opened()
        return bytes(filesystem.cat_file(path))

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the content as text."""
        return self.read_bytes().decode(encoding)

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """Yield what lies below and fits a pattern."""
        filesystem, path = self._opened()
        for found in filesystem.glob(f"{path}/{pattern}"):
            yield self / str(found).lstrip("/").removeprefix(path.lstrip("/")).lstrip("/")

    def version(self) -> str:
        """Return what the store says changes when the file does."""
        filesystem, path = self._opened()
        return str(filesystem.ukey(path))

    def _opened(self) -> tuple[Any, str]:
        """Return the file system, which fsspec keeps for this process (a forked one needs its own), and its name for this."""
        import fsspec

        try:
            filesystem, path = fsspec.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            advice = "Install fsspec's package for it (s3fs, gcsfs, ...)."
            raise ValueError(f"{self.url} cannot be opened: {error}. {advice}") from error
        return filesystem, str(path).rstrip("/")


def place(root: "Place | str") -> Any:
    """Return a `Path` for a local folder, a `RemotePath` for a URL; raises ValueError when its protocol cannot be used."""
    if isinstance(root, RemotePath):
        return root
    if not (isinstance(root, str) and "://" in root):
        return Path(str(root))
    remote = RemotePath(root.rstrip("/"))
    remote._opened()
    return remote


def version(path: Any) -> str:
    """Return what changes when a file is rewritten: time and size of a local one, what the store says of another."""
    if isinstance(path, RemotePath):
        return path.version()
    status = path.stat()
    return f"{status.st_mtime_ns} {status.st_size}"
