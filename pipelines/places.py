"""Where the configured run keeps its shards, as far as it matters for the space that they take."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Of fourfold.data.shard_store, whose import takes a second (compared with it in tests)
HERE = "here"  # the shards of a set are in its folder
PLACE_FILE = "shards_at.json"
ENTRY = "shards_at"  # of the catalog


def shards_place(catalog: Mapping[str, Any], root: Path | None = None) -> str:
    """Return the address or the folder at which shards are kept; "" if they are beside their manifests.

    Args:
        catalog: the configuration of the catalog.
        root: the folder of a set, which stays where it is if the catalog names no place.
    """
    entry = catalog.get(ENTRY)
    place = entry.get("place") if isinstance(entry, Mapping) else None
    if place is None and root is not None:
        place = recorded_place(root)
    return place if isinstance(place, str) and place != HERE else ""


def recorded_place(root: Path) -> str:
    """Return where a set keeps its shards now; "" if they are in its folder, or the file that says so is damaged."""
    try:
        return str(json.loads((root / PLACE_FILE).read_text(encoding="utf-8"))["place"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def is_on_disk_of(place: str, folder: Path) -> bool:
    """Return whether a place is a folder on the file system of another folder; both may be created later."""
    return "://" not in place and _device(Path(place)) == _device(folder.absolute())


def _device(path: Path) -> int:
    existing = next(one for one in (path, *path.parents) if one.exists())
    return existing.stat().st_dev
