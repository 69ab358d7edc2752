"""Tars in the layout of img2dataset and WebDataset: members `<name>.jpg`, `<name>.txt`, `<name>.json`.

The members of a sample are usually consecutive. Where others are between them, as in tars that were sorted by kind, what is
incomplete waits for the rest, within a bound of memory.

Nothing in an archive is trusted. Archives are never extracted and nothing is unpickled; a member that is not a plain file with
a known extension and a harmless name is not opened; no more than `max_file_bytes` of a file are read.
"""

import gzip
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from fourfold.data.ingestion.sources.archives import ArchiveError, Member, TarReader, open_archive
from fourfold.data.ingestion.sources.digests import digest_and_version
from fourfold.data.ingestion.sources.files import (
    IMAGE_EXTENSIONS,
    UNREAD_IMAGES,
    FilesConfig,
    after_drops,
    printable,
    safe_key,
)
from fourfold.data.ingestion.sources.listing import list_files, spread
from fourfold.data.ingestion.sources.source import Drop, RawSample, SampleStream, Source, SourceContext, SourceSlice

ROLES = {**dict.fromkeys(IMAGE_EXTENSIONS, "image"), "txt": "caption", "json": "metadata", "cls": "class"}
TARS = (".tar", ".tgz", ".tar.gz")
OTHER_ARCHIVES = (".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".zip", ".7z")  # listed so that the loss is counted
ESTIMATED_TARS, ESTIMATED_MEMBERS = 10, 1_000  # of each, whose sizes stand for those of all members
MAX_METADATA_BYTES = 1_000_000
MAX_WAITING_BYTES = 128 << 20  # of incomplete samples of an archive: all captions before all images fit, and small images
GROUP_BYTES = 500  # of an incomplete sample in memory, besides its content


class WebdatasetConfig(FilesConfig):
    """Settings of a tar or a folder of tars."""

    kind: Literal["webdataset"] = "webdataset"
    caption_field: str = "caption"  # of the `.json` of a sample without a `.txt`: a text, or a list of several
    image_extension: str | None = None  # of members to read as images in addition to .jpg, .png, ..., e.g. "input.png"
    caption_extension: str | None = None  # of members to read as captions in addition to .txt, e.g. "caption.txt"
    dots_in_keys: bool = (
        False  # False: a key ends at the first dot of a file name; True: at the last one, or an extension above
    )


class WebdatasetSource(Source):
    """Reads the tars of a folder and its sub-folders, or below a URL, in the order of their names."""

    title = "tars in the layout of img2dataset"
    config_class = WebdatasetConfig

    def open(self, config: WebdatasetConfig, context: SourceContext) -> list[SampleStream]:  # noqa: D102
        return [open_tars(config, "source", context=context)]

    def count(self, config: WebdatasetConfig, split_of: Callable[[str], str]) -> None:
        """Check that there is a tar to read. Samples are members, which are not listed."""
        list_files(config, TARS, "archive", OTHER_ARCHIVES)

    def estimate(self, config: WebdatasetConfig) -> int | None:
        """Return the bytes of all tars over those of an image with what belongs to it, by the first members of some tars.

        None behind an address, and if compressed tars are among them.
        """
        if "://" in config.path:
            return None
        files = list_files(config, TARS, "archive", ()).files
        if not all(path.name.lower().endswith(".tar") for path in files):
            return None
        found = [_look_into(path, config) for path in spread(files, ESTIMATED_TARS)]
        images, looked = (sum(column) for column in zip(*found, strict=True))
        return round(images / looked * sum(path.stat().st_size for path in files)) if images else None


def _look_into(path: Path, config: WebdatasetConfig) -> tuple[int, int]:
    """Return the number of images among the first members of a tar, and the bytes up to there; only headers are read."""
    endings = (*(f".{one}" for one in IMAGE_EXTENSIONS), *([f".{config.image_extension}"] if config.image_extension else []))
    images, end = 0, 0
    try:
        with tarfile.open(path, "r:") as archive:
            for number, member in enumerate(archive):
                if number == ESTIMATED_MEMBERS:
                    return images, member.offset
                images += member.isfile() and member.name.lower().endswith(endings)
                end = member.offset_data + member.size
    except (tarfile.TarError, OSError, EOFError, ValueError):
        return images, end  # a damaged tar is a loss that reading counts
    return images, path.stat().st_size


def open_tars(
    config: WebdatasetConfig, name: str, split: str | None = None, context: SourceContext | None = None
) -> SampleStream:
    """Return the stream of all tars at `config.path`, one slice each.

    Args:
        config: where the tars are.
        name: of the stream.
        split: of all samples; None: a hash of each key decides.
        context: of the source; None without a place for digests of content.

    Raises:
        ValueError: the path does not exist or holds no tar.
    """
    listing = list_files(config, TARS, "archive", OTHER_ARCHIVES)
    root = listing.root
    slices = [
        SourceSlice(
            printable(path.relative_to(root).as_posix() if path != root else path.name), partial(_read_archive, path, config)
        )
        for path in listing.files
    ]
    digest, version = digest_and_version(root, listing.files, config, context)
    return SampleStream(name, config.path, after_drops(listing.skipped, slices), digest, split, version)


def _read_archive(path: Path, config: WebdatasetConfig) -> Iterator[RawSample | Drop]:
    """Yield the samples of one tar: members whose names are equal up to the first dot of the file name."""
    waiting = _Waiting(config)
    group: dict[str, bytes] = {}
    current = ""
    for item in _read_members(path, config):
        if isinstance(item, Drop):
            yield item
            continue
        name, role, content = item
        if group and (name != current or role in group):
            yield from waiting.add(current, group)
            group = {}
        current, group[role] = name, content
    if group:
        yield from waiting.add(current, group)
    yield from waiting.rest()


class _Waiting:
    """Incomplete samples of one archive, in the order in which they began."""

    def __init__(self, config: WebdatasetConfig) -> None:
        self._config = config
        self._groups: dict[str, dict[str, bytes]] = {}
        self._bytes = 0
        self._complete: set[str] = set()
        self._too_far: set[str] = set()  # no longer waited for

    def add(self, name: str, group: dict[str, bytes]) -> Iterator[RawSample | Drop]:
        """Yield the sample of some members if it is complete now, and those for which there is no memory any more."""
        before = self._groups.pop(name, {})
        self._bytes -= _size(before)
        if before.keys() & group.keys():  # another sample of the same name
            yield _assemble(name, before, self._config)
            before = {}
        group = before | group
        if "image" in group and _captions(group, self._config):
            self._complete.add(name)
            yield _assemble(name, group, self._config)
            return
        if name in self._too_far:
            yield self._incomplete(name, group)
            return
        self._groups[name] = group
        self._bytes += _size(group)
        while self._bytes > MAX_WAITING_BYTES:
            oldest = next(iter(self._groups))
            self._too_far.add(oldest)
            yield self._first()

    def rest(self) -> Iterator[RawSample | Drop]:
        """Yield the samples that stayed incomplete."""
        while self._groups:
            yield self._first()

    def _first(self) -> RawSample | Drop:
        name = next(iter(self._groups))
        group = self._groups.pop(name)
        self._bytes -= _size(group)
        return self._incomplete(name, group)

    def _incomplete(self, name: str, group: dict[str, bytes]) -> RawSample | Drop:
        if "image" not in group and name in self._complete:
            return Drop(name, "member apart from its sample, which was complete", "member")
        if "image" not in group and name in self._too_far:
            return Drop(name, "member too far from the image of its sample", "member")
        return _assemble(name, group, self._config)


def _size(group: dict[str, bytes]) -> int:
    return sum(map(len, group.values())) + GROUP_BYTES * bool(group)


def _read_members(path: Path, config: WebdatasetConfig) -> Iterator[tuple[str, str, bytes] | Drop]:
    """Yield sample name, role and content of each usable member of a tar, and a Drop for each other member.

    This is the boundary of an archive: whatever is raised inside becomes a counted loss that names the archive.
    """
    roles = _roles(config)
    try:
        with open_archive(path) as archive:
            for member in archive:
                if not member.is_folder:  # its files are members of their own, so nothing is lost
                    yield _read_member(archive, member, config, roles)
    except ArchiveError as error:
        yield Drop(path.name, str(error), "archive")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield Drop(path.name, f"archive cut off or damaged ({type(error).__name__})", "archive")
    except (MemoryError, ConnectionError, TimeoutError):  # a fault of the machine or its network: no loss of the source
        raise
    except Exception as error:
        yield Drop(path.name, f"archive cannot be read ({type(error).__name__})", "archive")


def _read_member(
    archive: TarReader, member: Member, config: WebdatasetConfig, roles: Mapping[str, str]
) -> tuple[str, str, bytes] | Drop:
    path = PurePosixPath(member.name)
    stem, extension = _split(path.name, config, roles)
    role = roles.get(extension)
    if not member.is_file:
        return Drop(member.name, "member is not a plain file", "member")
    if path.is_absolute() or ".." in path.parts or "\\" in member.name:
        return Drop(member.name, "member has an unsafe name", "member")
    if path.name.startswith("."):  # of macOS: beside each file
        return Drop(member.name, "hidden member", "member")
    if role is None:
        return Drop(member.name, _reason(extension), "member")
    if member.size > (MAX_METADATA_BYTES if role == "metadata" else config.max_file_bytes):
        return Drop(member.name, "member is too large", "member")
    return path.parent.joinpath(stem).as_posix(), role, archive.read()


def _roles(config: WebdatasetConfig) -> dict[str, str]:
    """Return what members are by extension, in lower case."""
    own = {config.image_extension: "image", config.caption_extension: "caption"}
    return ROLES | {extension.lower().lstrip("."): role for extension, role in own.items() if extension}


def _split(name: str, config: WebdatasetConfig, roles: Mapping[str, str]) -> tuple[str, str]:
    """Return the key and the extension, in lower case, of the file name of a member."""
    if config.dots_in_keys:
        for extension in sorted(roles, key=len, reverse=True):
            if name.lower().endswith(f".{extension}"):
                return name[: -len(extension) - 1], extension
        stem, _, extension = name.rpartition(".")
    else:
        stem, _, extension = name.partition(".")
    return stem, extension.lower()


def _reason(extension: str) -> str:
    """Return why a member with this extension is not read."""
    if extension in UNREAD_IMAGES:
        return f"image format .{extension} is not read"
    if extension.rpartition(".")[2] in ROLES:
        return "member with several dots in its name (see source.dots_in_keys, image_extension and caption_extension)"
    return "member of a kind that is not read"


def _assemble(name: str, group: dict[str, bytes], config: WebdatasetConfig) -> RawSample | Drop:
    """Return a sample from the members of one name; the `.txt` takes precedence over the captions in the `.json`.

    The `.json` is an object with a text or a list of texts as caption, or a list of texts, as in shards of 4M.
    """
    metadata, captions = _metadata(group), _captions(group, config)
    metadata = metadata if isinstance(metadata, dict) else {}
    if "image" not in group:
        return Drop(name, "no image")
    if "class" in group:
        metadata = {"class": group["class"].decode("utf-8", "replace"), **metadata}
    return RawSample(safe_key(name), name, group["image"], next(iter(captions), None), metadata, captions[1:])


def _metadata(group: dict[str, bytes]) -> Any:
    try:
        return json.loads(group.get("metadata", b"{}"))
    except (ValueError, RecursionError):  # hostile JSON may be nested too deeply
        return {}


def _captions(group: dict[str, bytes], config: WebdatasetConfig) -> list[bytes]:
    """Return the captions among the members of a sample."""
    if "caption" in group:
        return [group["caption"]]
    metadata = _metadata(group)
    listed = metadata if isinstance(metadata, list) else None
    return _texts(listed or (metadata.get(config.caption_field) if isinstance(metadata, dict) else None))


def _texts(value: Any) -> list[bytes]:
    """Return the texts of a JSON value, a text or a list of texts only; none for other values."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return []
    return [text.encode("utf-8", "surrogatepass") for text in texts]
