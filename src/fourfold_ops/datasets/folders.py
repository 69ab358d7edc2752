"""Folders of many files: the catalog knows where they are, the library knows what is in them."""

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from fourfold_ops.atomic import digest_of
from fourfold_ops.loading import load_object

PLACES = ("root", "folder", "path")  # where an opened folder says where it is


class FolderDataset(AbstractDataset[Any, Any]):
    """A folder that a node has filled itself (streaming, resumable); load opens it, save checks it.

    Parameters
    ----------
    path:
        The folder.
    opener:
        Dotted path of what is called with the `Path` on load, e.g. `fourfold.data.shards.ShardSet`. Default: the path itself.
    """

    def __init__(self, path: str, opener: str = "pathlib.Path", metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata
        self._path = Path(path)
        self._opener = opener

    def load(self) -> Any:
        """Return `opener(path)`; raises DatasetError when the folder is absent."""
        if not self._exists():
            raise DatasetError(f"{self._path} does not exist or is empty. Run the stage that writes it first.")
        return load_object(self._opener)(self._path)

    def save(self, data: Any) -> None:
        """Accept what a node has put there: `data` (a path, or an object with `root`, `folder` or `path`) is of this folder.

        An object's own `verify()` is called if it has one.
        """
        place = data if isinstance(data, str | Path) else next((p for a in PLACES if (p := getattr(data, a, None))), None)
        if place is not None and Path(place).resolve() != self._path.resolve():
            raise DatasetError(f"The node returned the folder {place}, the catalog expects {self._path}. Pass it that folder.")
        if not self._exists():
            raise DatasetError(f"The node left {self._path} absent or empty.")
        if hasattr(data, "verify"):
            data.verify()

    def digest(self) -> str:
        """Return a digest of the content: the opened object's own `digest()`, else the SHA-256 of every file."""
        opened = self.load()
        if hasattr(opened, "digest"):
            return str(opened.digest())
        return digest_of([path for path in self._path.rglob("*") if path.is_file()], self._path)

    def _exists(self) -> bool:
        return self._path.is_dir() and any(self._path.iterdir())

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path), "opener": self._opener}


class WorkspaceDataset(AbstractDataset[None, Path]):
    """A folder that a node streams into or resumes in: load creates it and returns its `Path`.

    It is only ever an input, so the order of nodes comes from what they return (see `FolderDataset`), not from here.
    """

    def __init__(self, path: str, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata
        self._path = Path(path)

    def load(self) -> Path:
        """Return the folder, created if it was absent; raises DatasetError that says so when it cannot be."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatasetError(f"Cannot create the folder {self._path}: {error}. Make its parent writable.") from error
        return self._path

    def save(self, data: None) -> None:
        """Refuse: a node returns what it made through a `FolderDataset`."""
        raise DatasetError(f"{self._path} is a workspace, an input only. Return its content through a FolderDataset.")

    def _exists(self) -> bool:
        return True  # load creates it, so it never is a missing input

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path)}
