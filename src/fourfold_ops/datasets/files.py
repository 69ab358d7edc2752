"""Single files, written whole or not at all, and compared with their digest when they are read."""

import hashlib
import json
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError

from fourfold_ops.datasets.previews import ImagePreview, TablePreview, image_preview, json_preview
from fourfold_ops.digests import read_checked, write_recorded


class _FileDataset(AbstractDataset[Any, Any]):
    """Base of the data sets that are one file."""

    def __init__(self, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.metadata = metadata
        self._path = Path(filepath)

    def digest(self) -> str:
        """Return the hex SHA-256 of the file."""
        return hashlib.sha256(self._path.read_bytes()).hexdigest()

    def _read(self) -> str:
        return read_checked(self._path).decode()

    def _exists(self) -> bool:
        return self._path.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._path)}


class JsonDataset(_FileDataset):
    """A JSON file with sorted keys: equal values give equal bytes. Saving NaN or infinity raises an error."""

    def __init__(self, filepath: str, indent: int | None = 1, metadata: dict[str, Any] | None = None) -> None:
        """Create the data set; `indent` is the number of spaces for each level, None writes one line."""
        super().__init__(filepath, metadata)
        self._indent = indent

    def load(self) -> Any:
        """Return the parsed file; raises DatasetError if it is absent, changed after it was written, or not JSON."""
        try:
            return json.loads(self._read())
        except ValueError as error:
            raise DatasetError(
                f"{self._path} is not valid JSON ({error}). Delete it and run the stage that writes it."
            ) from error

    def save(self, data: Any) -> None:
        """Write `data`."""
        write_recorded(self._path, (json.dumps(data, indent=self._indent, sort_keys=True, allow_nan=False) + "\n").encode())

    def preview(self) -> TablePreview:
        """Return the content as a table, for Kedro-Viz."""
        return json_preview(self._path)  # type: ignore[return-value]  # None, where there is nothing to show


class TextDataset(_FileDataset):
    """A UTF-8 text file, e.g. an HTML report."""

    def load(self) -> str:
        """Return the text; raises DatasetError if the file is absent, or changed after it was written."""
        return self._read()

    def save(self, data: str) -> None:
        """Write `data`."""
        write_recorded(self._path, data.encode())


class BytesDataset(_FileDataset):
    """A file of bytes, e.g. a PNG."""

    def load(self) -> bytes:
        """Return the content; raises DatasetError if the file is absent, or changed after it was written."""
        return read_checked(self._path)

    def save(self, data: bytes) -> None:
        """Write `data`."""
        write_recorded(self._path, data)

    def preview(self) -> ImagePreview:
        """Return the image, for Kedro-Viz; nothing for other files than PNG."""
        return image_preview(self._path)  # type: ignore[return-value]
