"""Folders of many files: the catalog has their paths, the library opens and checks their content."""

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from fourfold_ops.atomic import digest_of
from fourfold_ops.datasets.previews import TablePreview, folder_preview
from fourfold_ops.loading import load_object

PATH_ATTRIBUTES = ("root", "folder", "path")  # of opened folders; the first one that exists counts


class FolderDataset(AbstractDataset[Any, Any]):
    """A folder that the node filled (streaming, resumable): load opens it, save checks it."""

    def __init__(
        self, path: str, opener: str = "pathlib.Path", metadata: dict[str, Any] | None = None, optional: bool = False
    ) -> None:
        """Create the data set.

        Args:
            path: The folder.
            opener: Dotted path of what load calls with the folder, e.g. `fourfold.data.shards.ShardSet`.
            metadata: Free data of the catalog entry.
            optional: Load returns None if the folder is absent or empty.
        """
        self.metadata = metadata
        self._path = Path(path)
        self._opener = opener
        self._optional = optional

    def load(self) -> Any:
        """Return `opener(path)`; raises DatasetError if the folder is absent or empty and not optional."""
        if not self._exists() and self._optional:
            return None
        if not self._exists():
            raise DatasetError(f"{self._path} does not exist or is empty. Run the stage that writes it first.")
        return load_object(self._opener)(self._path)

    def save(self, data: Any) -> None:
        """Check that the node filled the folder, and call `data.verify()` if `data` has that method.

        Args:
            data: A path, or an object with `root`, `folder` or `path`.

        Raises:
            DatasetError: `data` belongs to another folder, or the folder is absent or empty.
        """
        path = path_of(data)
        if path is not None and path.resolve() != self._path.resolve():
            raise DatasetError(f"The node returned the folder {path}, the catalog expects {self._path}. Pass it that folder.")
        if not self._exists():
            raise DatasetError(f"{self._path} is absent or empty after the node. Write the results to that folder.")
        if hasattr(data, "verify"):
            data.verify()

    def digest(self) -> str:
        """Return a digest of the content: `digest()` of the opened object if it has one, else the SHA-256 of all files."""
        opened = self.load()
        if hasattr(opened, "digest"):
            return str(opened.digest())
        return digest_of([path for path in self._path.rglob("*") if path.is_file()], self._path)

    def preview(self) -> TablePreview:
        """Return the number and size of the files by folder, for Kedro-Viz."""
        return folder_preview(self._path)  # type: ignore[return-value]  # None, where there is nothing to show

    def _exists(self) -> bool:
        return self._path.is_dir() and any(self._path.iterdir())

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path), "opener": self._opener}


class WorkspaceDataset(AbstractDataset[None, Path]):
    """A folder in which a node streams or resumes its work: load creates it and returns its `Path`.

    It is an input only, so the order of nodes follows from what they return (see `FolderDataset`).
    """

    def __init__(self, path: str, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata
        self._path = Path(path)

    def load(self) -> Path:
        """Return the folder, created if it was absent; raises DatasetError if it cannot be created."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatasetError(f"Cannot create the folder {self._path}: {error}. Make its parent writable.") from error
        return self._path

    def save(self, data: None) -> None:
        """Raise DatasetError: a node returns its results through a `FolderDataset`."""
        raise DatasetError(f"{self._path} is a workspace, an input only. Return its content through a FolderDataset.")

    def _exists(self) -> bool:
        return True  # load creates it, so it is never a missing input

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path)}


def path_of(data: Any) -> Path | None:
    """Return the folder of what a node returned: a path, or an object with `root`, `folder` or `path`; None without one."""
    if isinstance(data, str | Path):
        return Path(data)
    found = next((path for name in PATH_ATTRIBUTES if (path := getattr(data, name, None))), None)
    return None if found is None else Path(found)
