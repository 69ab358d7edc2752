"""What sources that read files share: settings, and names that are safe as keys and in logs."""

import hashlib
import os
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import PurePosixPath
from typing import Literal

from pydantic import Field, field_validator

from fourfold.data.ingestion.sources.source import Drop, SourceConfig, SourceSlice
from fourfold.data.shards import KEY_PATTERN

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff"})
UNREAD_IMAGES = frozenset(  # a loss of a sample, unlike other files of a kind that is not read
    {"heic", "heif", "avif", "jxl", "jp2", "j2k", "svg", "psd", "ico", "tga", "exr", "hdr", "ppm", "pgm", "pnm", "eps"}
    | {"raw", "dng", "cr2", "cr3", "nef", "arw", "orf", "rw2", "raf"}
)
PRINTABLE_CHARACTERS = 200  # of a name in logs and reports
READABLE_CHARACTERS = 40  # of a long or unsafe name, at the start of its key


class FilesConfig(SourceConfig):
    """Settings of a source that reads files."""

    path: str = Field(min_length=1)  # a file or folder; a relative path starts at the project; of tars also a URL
    follow_links: bool = False  # whether links may lead out of `path`; every folder is read once, whatever links to it
    digest: Literal["listing", "content"] = "listing"  # what makes the source another one: names and sizes, or all bytes
    max_file_bytes: int = Field(50_000_000, ge=1_000)  # of one image or caption

    @field_validator("path")
    @classmethod
    def _expand_home(cls, value: str) -> str:
        return os.path.expanduser(value)  # noqa: PTH111  Path would raise RuntimeError for an unknown user


def after_drops(drops: Sequence[Drop], slices: Sequence[SourceSlice]) -> list[SourceSlice]:
    """Return the slices of a stream, the first of which starts with drops that are known before anything is read."""
    first, *others = slices
    return [SourceSlice(first.name, lambda: chain(drops, first.read())), *others]


def printable(name: str) -> str:
    """Return a name as it may stand in logs and JSON: characters that cannot be printed are escaped, long names are cut."""
    if len(name) > PRINTABLE_CHARACTERS:
        name = f"{name[:PRINTABLE_CHARACTERS]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in name)


def inner_path(name: str) -> PurePosixPath | None:
    """Return a path that a table or JSON file names; None if it is absolute or leads out of its folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    return None if path.is_absolute() or ".." in path.parts else path


def safe_key(name: str) -> str:
    """Return a key for a sample's name: the name itself where shards allow it, otherwise its readable end and a hash.

    Different names give different keys.
    """
    if KEY_PATTERN.fullmatch(name):
        return name
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", name)[-READABLE_CHARACTERS:].strip("-")
    return f"{readable}-{hashlib.blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()}"
