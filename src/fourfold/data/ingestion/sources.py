"""Where images and captions come from: tars in the img2dataset layout, or a folder of pictures.

Nothing here trusts what it reads. Archives are never extracted and nothing is unpickled; a member that is not a plain file
with a known extension and a harmless name is not opened; no more than `max_file_bytes` of any file is read. Whatever cannot
become a sample is yielded as a `Drop` with its reason, so that losses are counted.
"""

import csv
import hashlib
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field, model_validator

from fourfold.configuration import Config
from fourfold.data.shards import KEY_PATTERN
from fourfold.data.tars import BLOCK

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})
ROLES = {**dict.fromkeys(IMAGE_EXTENSIONS, "image"), "txt": "caption", "json": "metadata"}
CAPTION_TABLES = ("captions.csv", "captions.jsonl")
FILES_PER_PART = 10_000
MAX_METADATA_BYTES = 1_000_000


class SourceConfig(Config):
    """What to take in. `path` is needed for every kind but `scenes`, which is rendered."""

    kind: Literal["scenes", "webdataset", "folder"] = "scenes"
    path: str | None = None  # webdataset: a tar or a folder of tars; folder: images with .txt beside them or a caption table
    caption_field: str = "caption"  # in the .json of a webdataset sample and in captions.csv / captions.jsonl
    file_field: str = "file"  # in captions.csv / captions.jsonl: the image, relative to `path`
    max_file_bytes: int = Field(50_000_000, ge=1_000)  # of one image or caption

    @model_validator(mode="after")
    def _has_a_path(self) -> "SourceConfig":
        if self.kind != "scenes" and not self.path:
            raise ValueError(f"source.kind {self.kind!r} needs source.path: where the images are.")
        return self


@dataclass(frozen=True)
class RawSample:
    """One image with its caption, as found: undecoded bytes. `key` is safe as a file name and equal for equal `name`s."""

    key: str
    name: str
    image: bytes
    caption: bytes
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Drop:
    """Something that cannot become a sample, and why.

    `what` says what was lost: one sample, a member of an archive that belongs to no sample, or the rest of an archive.
    """

    name: str
    reason: str
    what: Literal["sample", "member", "archive"] = "sample"


@dataclass(frozen=True)
class Part:
    """A piece of a source that can be read by itself: an archive, or a run of files. `read` starts from its beginning."""

    name: str
    read: Callable[[], Iterator[RawSample | Drop]]


def open_source(config: SourceConfig) -> Iterator[RawSample | Drop]:
    """Yield every sample of a webdataset or folder source, in the order of file names; see `parts`."""
    for part in parts(config):
        yield from part.read()


def parts(config: SourceConfig) -> list[Part]:
    """Return the parts of a source; raises ValueError when the path is missing, empty or holds nothing of this kind."""
    root = Path(config.path or "")
    files = source_files(config)
    if config.kind == "webdataset":
        return [Part(path.name, partial(_read_archive, path, config)) for path in files]
    captions = _caption_table(root, config)
    pieces = [files[start : start + FILES_PER_PART] for start in range(0, len(files), FILES_PER_PART)]
    return [Part(f"files from {start[0].name}", partial(_read_files, root, start, captions, config)) for start in pieces]


def source_files(config: SourceConfig) -> list[Path]:
    """Return the files that a source consists of, sorted; raises ValueError when there is none or the path is wrong."""
    if config.kind == "scenes":
        raise ValueError("The scenes are rendered, not read: source.kind must be webdataset or folder here.")
    root = Path(config.path or "")
    if not root.exists():
        raise ValueError(f"source.path {config.path!r} does not exist (from {Path.cwd()}). Give an existing file or folder.")
    try:
        if config.kind == "webdataset":
            found = [root] if root.is_file() else _plain_files(root, "*.tar")
        else:
            found = _plain_files(root, "*")
    except OSError as error:
        raise ValueError(
            f"source.path {config.path!r} cannot be listed: {error.strerror}. Give this user access to it."
        ) from error
    wanted = ("tar",) if config.kind == "webdataset" else tuple(sorted(IMAGE_EXTENSIONS))
    if not any(path.suffix[1:].lower() in wanted for path in found):
        raise ValueError(
            f"source.path {config.path!r} holds no .{' .'.join(wanted)} file. Is source.kind {config.kind!r} right?"
        )
    return found


def _plain_files(root: Path, pattern: str) -> list[Path]:
    """Return plain files (a named pipe would block for ever), without hidden ones: unfinished or of the system."""
    return sorted(path for path in root.rglob(pattern) if path.is_file() and not path.name.startswith("."))


def source_digest(config: SourceConfig) -> str:
    """Return a SHA-256 over the names and bytes of a source: work resumes only on what it began with."""
    digest = hashlib.sha256()
    for path in source_files(config):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(Path(config.path or '')).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def safe_key(name: str) -> str:
    """Return a key for a sample's name: the name itself where shards allow it, else a readable start and a hash."""
    if KEY_PATTERN.fullmatch(name):
        return name
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[-40:].strip("-")
    return f"{readable}-{hashlib.blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()}"


def _extension(name: str) -> str:
    return PurePosixPath(name).name.partition(".")[2].lower()


def _read_archive(path: Path, config: SourceConfig) -> Iterator[RawSample | Drop]:
    """Yield the samples of one tar: consecutive members whose names are equal up to the first dot of the file name."""
    group: dict[str, bytes] = {}
    current = ""
    for found in _members(path, config):
        if isinstance(found, Drop):
            yield found
            continue
        name, role, content = found
        if group and (name != current or role in group):
            yield _assemble(current, group, config)
            group = {}
        current, group[role] = name, content
    if group:
        yield _assemble(current, group, config)


def _members(path: Path, config: SourceConfig) -> Iterator[tuple[str, str, bytes] | Drop]:
    """Yield sample name, role and content of each usable member of a tar, and a Drop for each other one."""
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # tarfile remembers each; memory must not grow with them
                yield _member(archive, member, config)
            stream = archive.fileobj
            assert stream is not None, "an open archive has a stream"
            stream.seek(archive.offset)
            if stream.read(BLOCK) != bytes(BLOCK):
                yield Drop(path.name, "archive cut off or damaged", "archive")  # tarfile ends silently at a bad header
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        yield Drop(path.name, f"archive cut off or damaged ({type(error).__name__})", "archive")


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, config: SourceConfig) -> tuple[str, str, bytes] | Drop:
    path = PurePosixPath(member.name)
    role = ROLES.get(_extension(member.name))
    name = path.parent.joinpath(path.name.partition(".")[0]).as_posix()
    if not member.isreg():
        return Drop(member.name, "member is not a plain file", "member")
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        return Drop(member.name, "member has an unsafe name", "member")
    if role is None:
        return Drop(member.name, "member of a kind that is not read", "member")
    if member.size > (MAX_METADATA_BYTES if role == "metadata" else config.max_file_bytes):
        return Drop(member.name, "member is too large", "member")
    content = archive.extractfile(member)
    assert content is not None, "plain files have content"
    return name, role, content.read()


def _assemble(name: str, group: dict[str, bytes], config: SourceConfig) -> RawSample | Drop:
    """Return a sample from what was found under one name; the `.txt` wins over the caption in the `.json`."""
    try:
        metadata = json.loads(group.get("metadata", b"{}"))
    except (ValueError, RecursionError):
        metadata = {}
    metadata = metadata if isinstance(metadata, dict) else {}
    caption = group.get("caption")
    if caption is None and isinstance(metadata.get(config.caption_field), str):
        caption = metadata[config.caption_field].encode("utf-8", "surrogatepass")
    if "image" not in group:
        return Drop(name, "no image")
    if caption is None:
        return Drop(name, "no caption")
    return RawSample(safe_key(name), name, group["image"], caption, metadata)


def _read_files(root: Path, files: list[Path], captions: dict[str, str], config: SourceConfig) -> Iterator[RawSample | Drop]:
    """Yield the samples of a run of files: each image with the `.txt` beside it, or its caption in the table."""
    for path in files:
        name = path.relative_to(root).as_posix()
        extension = path.suffix[1:].lower()
        if extension not in IMAGE_EXTENSIONS:
            if extension != "txt" and name not in CAPTION_TABLES:
                yield Drop(name, "file of a kind that is not read", "member")
            continue
        try:
            yield _sample_from_file(path, name, captions, config)
        except OSError as error:
            yield Drop(name, f"file cannot be read ({type(error).__name__})")


def _sample_from_file(path: Path, name: str, captions: dict[str, str], config: SourceConfig) -> RawSample | Drop:
    beside = path.with_suffix(".txt")
    if beside.is_file():
        caption = _read_at_most(beside, config.max_file_bytes)
    elif name in captions:
        caption = captions[name].encode("utf-8", "surrogatepass")
    else:
        return Drop(name, "no caption")
    image = _read_at_most(path, config.max_file_bytes)
    if image is None or caption is None:
        return Drop(name, "file is too large")
    return RawSample(safe_key(name), name, image, caption)


def _read_at_most(path: Path, limit: int) -> bytes | None:
    with path.open("rb") as file:
        content = file.read(limit + 1)
    return content if len(content) <= limit else None


def _caption_table(root: Path, config: SourceConfig) -> dict[str, str]:
    """Return captions by relative file name from captions.csv and captions.jsonl, where they exist.

    Raises ValueError for a table that cannot be read. The table is held in memory (about 200 bytes a row): sets of many
    millions of images belong in tars.
    """
    captions: dict[str, str] = {}
    for path in (root / name for name in CAPTION_TABLES):
        if not path.is_file():
            continue
        try:
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                rows: Iterator[Any] = (
                    csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, filter(str.strip, file))
                )
                captions.update((str(row[config.file_field]), str(row[config.caption_field])) for row in rows)
        except (ValueError, csv.Error, RecursionError, KeyError, TypeError, OSError) as error:
            fields = f"fields {config.file_field!r} and {config.caption_field!r} (source.file_field, source.caption_field)"
            raise ValueError(f"{path} is not a caption table with {fields}: {type(error).__name__} {error}.") from error
    return captions
