"""A model folder, registered in MLflow as a model that loads without this repository."""

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset


class RegisteredModelDataset(AbstractDataset[Path, Any]):
    """Registers what it is given; being written."""

    def __init__(self, name: str, loader: str, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata
        self._name, self._loader = name, loader

    def load(self) -> Any:
        """Return the model."""
        raise NotImplementedError

    def save(self, data: Path) -> None:
        """Register the model folder."""

    def _describe(self) -> dict[str, Any]:
        return {"name": self._name, "loader": self._loader}
