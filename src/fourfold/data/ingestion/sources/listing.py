"""The list of files of a source. Links never lead out of it unless `follow_links` is set; what is left out is counted."""

import os
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from upath import UPath

from fourfold.data.ingestion.sources.files import FilesConfig, printable
from fourfold.data.ingestion.sources.patterns import SPECIAL, is_pattern, split_pattern
from fourfold.data.ingestion.sources.source import Drop, DropUnit
from fourfold.storage import PARTIAL_MARK

MAX_REASON = 300  # characters of the error of a file system in a message


@dataclass
class Listing:
    """The files of a source below `root`, and what is left out of it: links, and folders that cannot be read."""

    files: list[Path] = field(default_factory=list)
    skipped: list[Drop] = field(default_factory=list)
    root: Path = Path()


def list_files(config: FilesConfig, wanted: Collection[str], unit: DropUnit, others: Collection[str] | None = None) -> Listing:
    """Return the files of a source, sorted; a `path` that is a file is the only one, one with `*` or `{` is a pattern.

    A URL such as `s3://bucket/crawl` is listed as well; then files are `UPath`s, which can do the same.

    Hidden files (unfinished downloads, files of the system) and what is not a plain file (reading a named pipe would block)
    are left out. Links are followed within the source only, unless `follow_links` is set; then every folder is read once.

    Args:
        config: where to look.
        wanted: endings of the names that the source reads, lower case, with a dot.
        unit: what is lost with a wanted file that cannot be reached.
        others: further endings to list; None: every file.

    Raises:
        ValueError: the path does not exist, cannot be listed, or has no wanted file.
    """
    if "://" in config.path:
        return _list_url(config.path, tuple(wanted), tuple(others or ()))
    root, matches = split_pattern(config.path) if is_pattern(config.path) else (Path(config.path), None)
    if not root.exists():
        raise ValueError(f"source.path {config.path!r} does not exist (from {Path.cwd()}). Give an existing file or folder.")
    try:
        found = Listing([root]) if root.is_file() else _Walk(root, config.follow_links, tuple(wanted), unit).listing()
    except OSError as error:
        raise ValueError(
            f"source.path {config.path!r} cannot be listed: {error.strerror}. Give this user access to it."
        ) from error
    if matches is not None:
        found.files = [path for path in found.files if matches(path.relative_to(root).as_posix())]
    if others is not None:
        found.files = [path for path in found.files if path.name.lower().endswith((*wanted, *others))]
    if not any(path.name.lower().endswith(tuple(wanted)) for path in found.files):
        hint = f" Left out: {found.skipped[0].name} ({found.skipped[0].reason})." if found.skipped else ""
        raise ValueError(
            f"source.path {config.path!r} holds no {' '.join(sorted(wanted))} file.{hint} Is source.kind {config.kind!r} right?"
        )
    return Listing(sorted(found.files), found.skipped, root)


def spread(files: Sequence[Path], count: int) -> list[Path]:
    """Return at most `count` of some files, spread evenly over all of them."""
    step = max(1, -(-len(files) // count))
    return list(files[::step])


def _list_url(url: str, wanted: tuple[str, ...], others: tuple[str, ...]) -> Listing:
    """Return the files below a URL of any file system that fsspec knows, e.g. a bucket; the URL may be a pattern.

    Raises:
        ValueError: the file system cannot be opened or listed, or has no wanted file there.
    """
    scheme, _, place = url.partition("://")
    base, matches = split_pattern(place) if SPECIAL.search(place) else (PurePosixPath(place), None)
    try:
        root: Any = UPath(f"{scheme}://{base.as_posix()}")
        is_file = root.fs.isfile(root.path)
        names = [] if is_file else [path.removeprefix(root.path).strip("/") for path in root.fs.find(root.path)]
    except Exception as error:  # each file system has its errors: no package, no network, no access
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        advice = "Install fsspec's package for it (s3fs, gcsfs, ...) and check the access, or copy the files"
        raise ValueError(f"source.path {url!r} cannot be listed ({reason[:MAX_REASON]}). {advice}.") from error
    files: list[Any] = [root] if is_file else [root.joinpath(name) for name in sorted(names) if _is_read(name, wanted + others)]
    if matches is not None:
        files = [path for path in files if matches(path.relative_to(root).as_posix())]
    if not any(path.name.lower().endswith(wanted) for path in files):
        raise ValueError(
            f"source.path {url!r} holds no {' '.join(sorted(wanted))} file. Give the URL of files, or of a folder."
        )
    return Listing(files, [], root)


def _is_read(name: str, endings: tuple[str, ...]) -> bool:
    return name.lower().endswith(endings) and not any(part.startswith(".") for part in name.split("/"))


class _Walk:
    """Visits every folder below a root once, real folders before linked ones, so loops of links end."""

    def __init__(self, root: Path, follow_links: bool, wanted: tuple[str, ...], unit: DropUnit) -> None:
        self.root, self.base, self.follow_links = root, root.resolve(), follow_links
        self.wanted, self.unit = wanted, unit
        self.folders, self.linked = [root], deque[Path]()
        self.seen: set[tuple[int, int]] = set()  # device and inode of the folders that were read
        self.found = Listing()

    def listing(self) -> Listing:
        """Return everything below the root; raises OSError when the root itself cannot be listed."""
        while self.folders or self.linked:
            folder = self.folders.pop() if self.folders else self.linked.popleft()
            try:
                self._read(folder)
            except OSError as error:
                if folder == self.root:
                    raise
                self._skip(folder, f"folder cannot be read ({type(error).__name__})", "folder")
        return self.found

    def _read(self, folder: Path) -> None:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in self.seen:
            self._skip(folder, "linked folder was read already, under another name", "folder")
            return
        self.seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                if entry.is_dir(follow_symlinks=False):
                    self.folders.append(folder / entry.name)
                elif entry.name.startswith("."):  # others are of the system, such as .DS_Store, or unfinished
                    if entry.name.lower().endswith(self.wanted) and not entry.name.startswith(PARTIAL_MARK):
                        self._skip(folder / entry.name, "hidden file", "member")
                elif entry.is_symlink():
                    self._follow(folder / entry.name)
                elif entry.is_file(follow_symlinks=False):
                    self.found.files.append(folder / entry.name)
                else:
                    self._skip(folder / entry.name, "no regular file (a pipe, a socket or a device)", "member")

    def _follow(self, link: Path) -> None:
        unit: DropUnit = self.unit if link.name.lower().endswith(self.wanted) else "member"
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError):  # RuntimeError: a loop of links, before Python 3.13
            self._skip(link, "link leads nowhere", unit)
            return
        if not self.follow_links and not target.is_relative_to(self.base):
            unit = "folder" if target.is_dir() else unit
            self._skip(link, "link leads out of the source (follow_links: false)", unit)
        elif target.is_dir():
            self.linked.append(link)
        elif target.is_file():
            self.found.files.append(link)

    def _skip(self, path: Path, reason: str, unit: DropUnit) -> None:
        self.found.skipped.append(Drop(printable(path.relative_to(self.root).as_posix()), reason, unit))
