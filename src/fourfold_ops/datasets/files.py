"""Single files, written whole or not at all."""

import hashlib
import json
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from fourfold_ops.atomic import write_whole


class _FileDataset(AbstractDataset[Any, Any]):
    """Base of the data sets that are one file."""

    def __init__(self, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata
        self._path = Path(filepath)

    def digest(self) -> str:
        """Return the hex SHA-256 of the file."""
        return hashlib.sha256(self._path.read_bytes()).hexdigest()

    def _read(self) -> str:
        if not self._path.is_file():
            raise DatasetError(f"{self._path} does not exist. Run the stage that writes it first.")
        return self._path.read_text(encoding="utf-8")

    def _exists(self) -> bool:
        return self._path.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}


class JsonDataset(_FileDataset):
    """A JSON file with sorted keys: equal values give equal bytes. Saving NaN or infinity raises an error."""

    def load(self) -> Any:
        """Return the parsed file; raises DatasetError if it is absent or not JSON."""
        try:
            return json.loads(self._read())
        except ValueError as error:
            raise DatasetError(
                f"{self._path} is not valid JSON ({error}). Delete it and run the stage that writes it."
            ) from error

    def save(self, data: Any) -> None:
        """Write `data`."""
        write_whole(self._path, (json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


class TextDataset(_FileDataset):
    """A UTF-8 text file, e.g. an HTML report."""

    def load(self) -> str:
        """Return the text; raises DatasetError if the file is absent."""
        return self._read()

    def save(self, data: str) -> None:
        """Write `data`."""
        write_whole(self._path, data.encode())


class BytesDataset(_FileDataset):
    """A file of bytes, e.g. a PNG."""

    def load(self) -> bytes:
        """Return the content; raises DatasetError if the file is absent."""
        if not self._exists():
            raise DatasetError(f"{self._path} does not exist. Run the stage that writes it first.")
        return self._path.read_bytes()

    def save(self, data: bytes) -> None:
        """Write `data`."""
        write_whole(self._path, data)
