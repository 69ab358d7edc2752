"""Tables of answers about a folder of images, one in each folder; what a killed command has done is not done again."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fourfold.data.ingestion.sources.files import IMAGE_EXTENSIONS
from fourfold.storage import read_json, write_bytes, write_json

TABLE_FILE, SKIPPED_FILE, REQUEST_FILE = "metadata.jsonl", "skipped.jsonl", "request.json"


def record_request(folder: Path, about: dict[str, Any]) -> None:
    """Write what is asked; raises ValueError if the folder has answers to another request or of another model."""
    stored = read_json(folder / REQUEST_FILE) if (folder / REQUEST_FILE).is_file() else about
    if stored != about:
        different = ", ".join(key for key in sorted({*about, *stored}) if stored.get(key) != about.get(key))
        raise ValueError(f"{folder} has answers to another request: {different} differ. Choose another folder.")
    write_json(folder / REQUEST_FILE, about)


def natural_order(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names with numbers as people count: frame 9 before frame 10."""
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def unanswered(
    images: Path, folder: Path, counts: Counter[str], order: Callable[[str], Any] = str
) -> Iterator[tuple[Path, Path]]:
    """Yield each image below `images` that has no line yet, and its path below `images`; links are not followed.

    Args:
        images: a folder.
        folder: of the tables.
        counts: is increased for what has a line ("answered before") and what is no image ("not an image").
        order: key of the order of names in a folder.
    """
    for parent, names, files in os.walk(images):
        names.sort(key=order)
        relative = Path(parent).relative_to(images)
        done = answered_names(folder / relative)
        for name in sorted(files, key=order):
            if Path(name).suffix.lower().lstrip(".") not in IMAGE_EXTENSIONS or Path(parent, name).is_symlink():
                counts["not an image"] += 1
            elif name in done:
                counts["answered before"] += 1
            else:
                yield Path(parent, name), relative / name


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a line to a table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", errors="surrogateescape") as file:  # file names may be any bytes
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def answered_names(folder: Path) -> set[str]:
    """Return the names that have a line; the end of a table that a kill cut off is removed."""
    names: set[str] = set()
    for path in (folder / TABLE_FILE, folder / SKIPPED_FILE):
        if path.is_file():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if whole != content:
                write_bytes(path, whole)
            lines = whole.decode("utf-8", "surrogateescape").split("\n")
            names |= {json.loads(line)["file_name"] for line in lines if line}
    return names
