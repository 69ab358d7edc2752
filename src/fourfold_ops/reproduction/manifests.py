"""What the files beside results say about them: `digests.json`, and `manifest.json` of shards. Both have SHA-256."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from fourfold_ops.digests import BEFORE, DIGESTS_FILE
from fourfold_ops.reproduction.content import Content

# {"shards": [{"name": …, "sha256": …, "facts": {"name": …, "sha256": …}}, …]}, see docs/formats.md
MANIFEST_FILE = "manifest.json"


def recorded_digests(folder: Path, content: Content) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the SHA-256 that files of a folder may have: by path, then by the file that records them.

    Args:
        folder: The folder, or a single file, in which nothing is recorded.
        content: What it contains; only records among these files are read.
    """
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for record in content.files:
        path = PurePosixPath(record)
        if path.name not in (DIGESTS_FILE, MANIFEST_FILE):
            continue
        table = _read(folder / record)
        entries = _of_digests(table) if path.name == DIGESTS_FILE else _of_manifest(table)
        for name, digests in entries.items():
            found.setdefault((path.parent / name).as_posix(), {})[record] = digests
    return found


def disagreements(folder: Path, content: Content) -> dict[str, str]:
    """Return a sentence for each file, by path, that differs from what `digests.json` or a manifest has for it."""
    found = {}
    for name, records in sorted(recorded_digests(folder, content).items()):
        if name not in content.files and (folder / name).exists():
            continue  # excluded by .dvcignore
        sha256 = content.files[name].sha256 if name in content.files else "absent"
        for record, expected in records.items():
            if sha256 not in expected:
                found[name] = f"SHA-256 {_short(sha256)}, {record} has {_short(expected[0])}"
    return found


def _of_digests(table: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(table, Mapping) or not all(isinstance(value, str) for value in table.values()):
        return {}
    names = {name.removesuffix(BEFORE) for name in table}
    return {name: tuple(table[key] for key in (name, name + BEFORE) if key in table) for name in names}


def _of_manifest(table: Any) -> dict[str, tuple[str, ...]]:
    shards = table.get("shards") if isinstance(table, Mapping) else None
    entries = [shard for shard in shards if isinstance(shard, Mapping)] if isinstance(shards, list) else []
    entries += [beside for shard in entries for beside in shard.values() if isinstance(beside, Mapping)]
    return {str(shard["name"]): (str(shard["sha256"]),) for shard in entries if {"name", "sha256"} <= set(shard)}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):  # a damaged record is itself a changed file, and reported as such
        return None


def _short(digest: str) -> str:
    return digest if digest == "absent" else f"{digest[:12]}…"
