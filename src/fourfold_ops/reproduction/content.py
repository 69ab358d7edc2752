"""Files and folders, hashed again as DVC hashes them: no cached digest counts, and no time of modification."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fourfold_ops.versioning.hashes import md5_of_listing

BLOCK = 1 << 20


@dataclass(frozen=True)
class Digests:
    """The digests of one file, both hex."""

    md5: str
    sha256: str


@dataclass(frozen=True)
class Content:
    """A file, or a folder with all its files by path inside it; a file has the path ""."""

    md5: str  # as DVC writes it
    files: dict[str, Digests] = field(default_factory=dict)


class Reader:
    """Reads what DVC would see of a project: everything that its .dvcignore does not exclude."""

    def __init__(self, root: Path) -> None:
        """Create it for the folder of dvc.yaml."""
        from dvc.fs import localfs
        from dvc.ignore import DvcIgnoreFilter

        self.root = root.resolve()
        self._localfs: Any = localfs
        self._ignore = DvcIgnoreFilter(localfs, str(self.root))

    def content(self, path: str) -> Content | None:
        """Return the content of a file or folder, read in blocks; None if it is absent.

        Args:
            path: Relative to the project, or absolute.
        """
        place = self.root / path
        if place.is_file():
            digests = digests_of(place)
            return Content(digests.md5, {"": digests})
        if not place.is_dir():
            return None
        files = {file.relative_to(place).as_posix(): digests_of(file) for file in self.files(place)}
        return Content(md5_of_listing({name: found.md5 for name, found in files.items()}), files)

    def files(self, folder: Path) -> Iterator[Path]:
        """Yield the files below a folder that DVC would hash."""
        for name in self._ignore.find(self._localfs, str(folder)):
            yield Path(name)


def digests_of(path: Path) -> Digests:
    """Return both digests of a file, which is read once."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            md5.update(block)
            sha256.update(block)
    return Digests(md5.hexdigest(), sha256.hexdigest())
