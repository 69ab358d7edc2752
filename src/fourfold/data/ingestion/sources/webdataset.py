"""Tars in the layout of img2dataset and WebDataset: `<name>.jpg`, `<name>.txt`, `<name>.json` as consecutive members.

Nothing in an archive is trusted. Archives are never extracted and nothing is unpickled; a member that is not a plain file with
a known extension and a harmless name is not opened; no more than `max_file_bytes` of a file are read.
"""

import json
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from fourfold.data.ingestion.sources.files import IMAGE_EXTENSIONS, FilesConfig, digest_of_files, list_files, safe_key
from fourfold.data.ingestion.sources.source import Drop, RawSample, SampleStream, Source, SourceContext, SourceSlice
from fourfold.data.tars import BLOCK

ROLES = {**dict.fromkeys(IMAGE_EXTENSIONS, "image"), "txt": "caption", "json": "metadata"}
MAX_METADATA_BYTES = 1_000_000


class WebdatasetConfig(FilesConfig):
    """Settings of a tar or a folder of tars."""

    kind: Literal["webdataset"] = "webdataset"
    caption_field: str = "caption"  # of the `.json` of a sample without a `.txt`


class WebdatasetSource(Source):
    """Reads the tars of a folder and its sub-folders, in the order of their names."""

    title = "tars in the layout of img2dataset"
    config_class = WebdatasetConfig

    def open(self, config: WebdatasetConfig, context: SourceContext) -> list[SampleStream]:  # noqa: D102
        return [open_tars(config, "source")]


def open_tars(config: WebdatasetConfig, name: str, split: str | None = None) -> SampleStream:
    """Return the stream of all tars at `config.path`, one slice each.

    Raises:
        ValueError: the path does not exist or holds no tar.
    """
    root, files = Path(config.path), list_files(config, "*.tar", frozenset({"tar"}))
    slices = [SourceSlice(path.name, partial(_read_archive, path, config)) for path in files]
    return SampleStream(name, config.path, slices, digest_of_files(root, files), split)


def _read_archive(path: Path, config: WebdatasetConfig) -> Iterator[RawSample | Drop]:
    """Yield the samples of one tar: consecutive members whose names are equal up to the first dot of the file name."""
    group: dict[str, bytes] = {}
    current = ""
    for item in _read_members(path, config):
        if isinstance(item, Drop):
            yield item
            continue
        name, role, content = item
        if group and (name != current or role in group):
            yield _assemble(current, group, config)
            group = {}
        current, group[role] = name, content
    if group:
        yield _assemble(current, group, config)


def _read_members(path: Path, config: WebdatasetConfig) -> Iterator[tuple[str, str, bytes] | Drop]:
    """Yield sample name, role and content of each usable member of a tar, and a Drop for each other member."""
    try:
        with tarfile.open(path, "r:") as archive:
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps a list of them: memory must not grow
                yield _read_member(archive, member, config)
            stream = archive.fileobj
            assert stream is not None, "an open archive has a stream"
            stream.seek(archive.offset)
            if stream.read(BLOCK) != bytes(BLOCK):
                yield Drop(path.name, "archive cut off or damaged", "archive")  # tarfile ends silently at a bad header
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        yield Drop(path.name, f"archive cut off or damaged ({type(error).__name__})", "archive")


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo, config: WebdatasetConfig) -> tuple[str, str, bytes] | Drop:
    path = PurePosixPath(member.name)
    stem, _, extension = path.name.partition(".")
    role = ROLES.get(extension.lower())
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
    return path.parent.joinpath(stem).as_posix(), role, content.read()


def _assemble(name: str, group: dict[str, bytes], config: WebdatasetConfig) -> RawSample | Drop:
    """Return a sample from the members of one name; the `.txt` takes precedence over the caption in the `.json`."""
    try:
        metadata = json.loads(group.get("metadata", b"{}"))
    except (ValueError, RecursionError):  # hostile JSON may be nested too deeply
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
