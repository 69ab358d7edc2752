"""What the files beside results say about them: `digests.json`, and `manifest.json` of shards. Both have SHA-256.

Shards that a set keeps in a bucket or another folder are read there: `shards_at.json` of the set names the place.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fourfold_ops.digests import BEFORE, DIGESTS_FILE
from fourfold_ops.errors import UserError, one_line
from fourfold_ops.reproduction.content import Content

# {"shards": [{"name": …, "sha256": …, "facts": {"name": …, "sha256": …}}, …]}, see docs/formats.md
MANIFEST_FILE = "manifest.json"
PLACE_FILE = "shards_at.json"  # {"place": …}, in the folder of a set: <set>/<split>/<modality>/manifest.json
ARCHIVE = ".tar"
ABSENT = "absent"


@dataclass(frozen=True)
class Disagreement:
    """A file that differs from what is recorded beside it.

    Attributes:
        found: The SHA-256 of its bytes, or "absent".
        text: What was found, and which record has what.
        is_elsewhere: Whether it is a shard that is not kept in its folder.
    """

    found: str
    text: str
    is_elsewhere: bool = False


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


def disagreements(folder: Path, content: Content) -> dict[str, Disagreement]:
    """Return each file, by path, that differs from what `digests.json` or a manifest has for it.

    Raises:
        UserError: The place of a set's shards cannot be reached.
    """
    found = {}
    for name, records in sorted(recorded_digests(folder, content).items()):
        if name not in content.files and (folder / name).exists():
            continue  # excluded by .dvcignore
        for record, expected in records.items():
            is_gone = name not in content.files and name.endswith(ARCHIVE)  # facts are never elsewhere
            place = _place(folder, content, record) if is_gone else ""
            sha256 = content.files[name].sha256 if name in content.files else _sha256_at(place, expected[0])
            if sha256 not in expected:
                where = f" in {place}" if place else ""
                text = f"SHA-256 {_short(sha256)}{where}, {record} has {_short(expected[0])}"
                found[name] = Disagreement(sha256, text, bool(place))
    return found


def _place(folder: Path, content: Content, record: str) -> str:
    """Return where the set of a manifest keeps its shards; "" for other records, and if they are beside it."""
    path = PurePosixPath(record)
    if path.name != MANIFEST_FILE or len(path.parents) < 3:  # the split and the modality, in the folder of the set
        return ""
    name = (path.parents[2] / PLACE_FILE).as_posix()
    table = _read(folder / name) if name in content.files else None
    return str(table.get("place", "")) if isinstance(table, Mapping) else ""


def _sha256_at(place: str, sha256: str) -> str:
    """Return the SHA-256 of the bytes of an object, which are read; "absent" if there is none."""
    if not place:
        return ABSENT
    import fsspec

    address = f"{place}/{sha256[:2]}/{sha256}.tar"
    try:
        with fsspec.open(address, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ABSENT
    except Exception as error:  # of the client of a store: of many kinds
        raise UserError(
            f"{address} cannot be read ({type(error).__name__}: {one_line(error)}).",
            "Check your credentials, the network and that the package for this address is installed; then try again.",
        ) from error


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
    return digest if digest == ABSENT else f"{digest[:12]}…"
