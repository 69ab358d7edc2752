"""What Kedro-Viz shows of a data set: a table or an image. It recognizes the types below by their names.

https://docs.kedro.org/projects/kedro-viz/en/stable/preview_datasets/
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NewType

TablePreview = NewType("TablePreview", dict[str, Any])  # index, columns and data, as `DataFrame.to_dict("split")` has them
ImagePreview = NewType("ImagePreview", str)  # a PNG as base64

MAX_ROWS = 200
MAX_TEXT = 120  # characters of a cell: a page or an image within a JSON file is no text to read
MAX_BYTES = 20_000_000  # of a file that is read for a preview
PNG = b"\x89PNG\r\n"


def table(columns: list[str], rows: list[list[Any]]) -> TablePreview:
    """Return the first rows of a table; a last row says how many there are besides."""
    shown = [[_cell(value) for value in row] for row in rows[:MAX_ROWS]]
    if len(rows) > MAX_ROWS:
        shown.append([f"and {len(rows) - MAX_ROWS:,} more", *[""] * (len(columns) - 1)])
    return TablePreview({"index": list(range(1, len(shown) + 1)), "columns": columns, "data": shown})


def json_preview(path: Path) -> TablePreview | None:
    """Return a JSON file as a table: a list of objects with a column for each key, other values by name.

    None if the file is absent or too large.
    """
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        return None
    value = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        columns = list(dict.fromkeys(key for row in value for key in row))
        return table(columns, [[row.get(key, "") for key in columns] for row in value])
    return table(["name", "value"], [[name, leaf] for name, leaf in _leaves(value, "")])


def image_preview(path: Path) -> ImagePreview | None:
    """Return a PNG file; None for an absent, large or other file."""
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        return None
    content = path.read_bytes()
    return ImagePreview(base64.b64encode(content).decode()) if content.startswith(PNG) else None


def folder_preview(path: Path) -> TablePreview | None:
    """Return the files and bytes of a folder, by its folders of the first two levels; None for an absent folder."""
    if not path.is_dir():
        return None
    counts: dict[str, list[int]] = {}
    for file in sorted(path.rglob("*")):
        if file.is_file():
            name = "/".join(file.relative_to(path).parts[:-1][:2]) or "."
            entry = counts.setdefault(name, [0, 0])
            entry[0] += 1
            entry[1] += file.stat().st_size
    return table(["folder", "files", "bytes"], [[name, *counts[name]] for name in counts])


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _leaves(item, f"{name}/{key}" if name else str(key))
    else:
        yield name, value


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, int | bool):
        return value
    text = "" if value is None else str(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}… ({len(text):,} characters)"
