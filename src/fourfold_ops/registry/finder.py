"""Finds the folder of a model by what a user names: a folder, or a version of the registry."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from fourfold_ops.errors import UserError

SCHEME = "models:/"


class ModelFinderDataset(AbstractDataset[None, Callable[[str | None], Path]]):
    """Load returns a function: a folder, `models:/NAME@ALIAS`, `models:/NAME/VERSION` or None → the folder of that model."""

    def __init__(self, path: str, metadata: dict[str, Any] | None = None) -> None:
        """Create the data set.

        Args:
            path: The folder that None stands for.
            metadata: Free data of the catalog entry.
        """
        self.metadata = metadata
        self._path = Path(path)

    def load(self) -> Callable[[str | None], Path]:
        """Return the function; see `find_model`."""
        return lambda reference: find_model(reference, self._path)

    def save(self, data: None) -> None:
        """Raise DatasetError: a model is found, not saved."""
        raise DatasetError(f"{self._path} is only read here. Save a model through the stage that makes it.")

    def _describe(self) -> dict[str, Any]:
        return {"path": str(self._path)}


def find_model(reference: str | None, default: Path) -> Path:
    """Return the folder of a model; a version of the registry is downloaded if the registry is remote.

    Raises:
        UserError: There is no such folder or version.
    """
    if reference is not None and reference.startswith(SCHEME):
        return _registered(reference)
    folder = default if reference is None else Path(reference).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"The model folder {folder} does not exist.",
            "Train a model with `kedro run`, or name a folder or a version of the registry, e.g. models:/fourfold@champion.",
        )
    return folder


def _registered(reference: str) -> Path:
    import yaml
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        folder = Path(download_artifacts(artifact_uri=reference))
        described = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
        return folder / described["flavors"]["python_function"]["data"]
    except (MlflowException, OSError, KeyError) as error:
        raise UserError(
            f"The registry has no model {reference} ({str(error).splitlines()[0]}).",
            "Name a version, e.g. models:/fourfold@champion; `kedro models list` shows them.",
        ) from error
