"""Compares the outputs of stages with a lock: which files differ, and of archives which samples."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fourfold_ops.reproduction.archives import KeyDifference, different_keys
from fourfold_ops.reproduction.content import Content, Reader
from fourfold_ops.reproduction.lock import Entry, Lock
from fourfold_ops.reproduction.manifests import ABSENT, ARCHIVE, Disagreement, disagreements
from fourfold_ops.reproduction.objects import Objects
from fourfold_ops.versioning.hashes import FOLDER

SAME, DIFFERENT, MISSING, ADDITIONAL = "same", "different", "missing", "additional"
MAX_FILES = 200  # named for each output; the count has all
MAX_ARCHIVES = 20  # of which the samples are compared, for each output


@dataclass(frozen=True)
class FileChange:
    """One file of an output that is not as recorded."""

    path: str  # relative to the project
    status: str  # DIFFERENT, MISSING or ADDITIONAL
    note: str = ""  # what digests.json or a manifest has for it
    keys: KeyDifference | None = None  # of archives


@dataclass(frozen=True)
class OutputResult:
    """One output of a stage beside its record."""

    stage: str
    path: str
    status: str
    recorded: str  # MD5
    found: str  # MD5, or "absent"
    files: tuple[FileChange, ...] = ()
    num_changed: int = 0
    num_files: int = 0
    notes: tuple[str, ...] = field(default=())


def compare_outputs(lock: Lock, stages: Iterable[str], root: Path, objects: Objects) -> list[OutputResult]:
    """Hash the outputs of stages below `root` again, and compare them with the lock, in its order.

    Args:
        lock: What was recorded.
        stages: The stages whose outputs are compared.
        root: The project folder with the data.
        objects: The original files, for the names of files and samples that differ.
    """
    reader = Reader(root)
    return [_compared(reader, name, out, objects) for name in stages for out in lock.stages[name].outs]


def _compared(reader: Reader, stage: str, out: Entry, objects: Objects) -> OutputResult:
    content = reader.content(out.path)
    if content is None:
        return OutputResult(stage, out.path, MISSING, out.md5, "absent")
    wrong = disagreements(reader.root / out.path, content)
    listing = _listing(out, content, objects)
    changes = [] if content.md5 == out.md5 else _changes(listing, content)
    names = {name for name, _ in changes}
    changes += [(name, MISSING if one.found == ABSENT else DIFFERENT) for name, one in wrong.items() if name not in names]
    changes.sort()
    recorded = {name: md5 for name, md5 in (listing or {}).items() if name in content.files and md5 != content.files[name].md5}
    keys = _keys_of_archives(recorded, reader.root / out.path, objects)
    described = [
        FileChange(f"{out.path}/{name}".rstrip("/"), status, wrong[name].text if name in wrong else "", keys.get(name))
        for name, status in changes[:MAX_FILES]
    ]
    is_same = content.md5 == out.md5 and not wrong
    return OutputResult(
        stage,
        out.path,
        SAME if is_same else DIFFERENT,
        out.md5,
        content.md5,
        tuple(described),
        len(changes),
        len(content.files),
        tuple(_notes(out, content, listing, wrong)),
    )


def _listing(out: Entry, content: Content, objects: Objects) -> dict[str, str] | None:
    """Return the recorded MD5 by file; it is needed only for an output that differs."""
    if content.md5 == out.md5:
        return {name: digests.md5 for name, digests in content.files.items()}
    return objects.listing(out.md5) if out.md5.endswith(FOLDER) else {"": out.md5}


def _changes(listing: dict[str, str] | None, content: Content) -> list[tuple[str, str]]:
    if listing is None:
        return []
    found = {name: digests.md5 for name, digests in content.files.items()}
    names = sorted(name for name in {*listing, *found} if listing.get(name) != found.get(name))
    return [
        (name, DIFFERENT if name in listing and name in found else MISSING if name in listing else ADDITIONAL) for name in names
    ]


def _keys_of_archives(recorded: dict[str, str], folder: Path, objects: Objects) -> dict[str, KeyDifference | None]:
    """Return the samples that differ, by path, of the first archives among changed files (path → recorded MD5)."""
    found = {}
    for name in sorted(name for name in recorded if name.endswith(ARCHIVE))[:MAX_ARCHIVES]:
        with objects.open(recorded[name]) as original:
            found[name] = None if original is None else different_keys(original, folder / name)
    return found


def _notes(out: Entry, content: Content, listing: dict[str, str] | None, wrong: dict[str, Disagreement]) -> list[str]:
    """Return what the digests mean together: a lock that was edited looks unlike a file that was changed."""
    notes = []
    if any(one.is_elsewhere for one in wrong.values()):
        notes.append("shards are missing or damaged where the set keeps them: run its stage again, which makes them")
    if content.md5 == out.md5:
        if not all(one.is_elsewhere for one in wrong.values()):
            notes.append("dvc.lock has these bytes, but digests.json or a manifest has others: changed before it was recorded")
        return notes
    if listing is None:
        notes.append(f"neither cache nor remote of DVC has the listing {out.md5}, so files cannot be compared one by one")
    if not wrong and out.md5.endswith(FOLDER):
        notes.append(
            "every file agrees with digests.json and its manifest: the data are of another run, or dvc.lock was edited"
        )
    return notes
