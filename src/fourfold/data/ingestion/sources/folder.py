"""A folder of images, each with a `.txt` file beside it or a row in a caption table. Nothing in it is trusted."""

import csv
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fourfold.data.ingestion.sources.files import IMAGE_EXTENSIONS, FilesConfig, digest_of_files, list_files, safe_key
from fourfold.data.ingestion.sources.source import Drop, RawSample, SampleStream, Source, SourceContext, SourceSlice

CAPTION_TABLES = ("captions.csv", "captions.jsonl")
FILES_PER_SLICE = 10_000


class FolderConfig(FilesConfig):
    """Settings of a folder of images."""

    kind: Literal["folder"] = "folder"
    caption_field: str = "caption"  # of the caption table
    file_field: str = "file"  # of the caption table: the image, relative to `path`


class FolderSource(Source):
    """Reads the images of a folder and its sub-folders, in the order of their names."""

    title = "folder of images with .txt files or a caption table"
    config_class = FolderConfig

    def open(self, config: FolderConfig, context: SourceContext) -> list[SampleStream]:  # noqa: D102
        root = Path(config.path)
        if root.is_file():
            raise ValueError(f"source.path {config.path!r} is a file; source.kind 'folder' needs the folder of the images.")
        files = list_files(config, "*", IMAGE_EXTENSIONS)
        captions = _read_caption_tables(root, config)
        runs = [files[start : start + FILES_PER_SLICE] for start in range(0, len(files), FILES_PER_SLICE)]
        slices = [SourceSlice(f"files from {run[0].name}", partial(_read_files, root, run, captions, config)) for run in runs]
        return [SampleStream("source", config.path, slices, digest_of_files(root, files))]


def _read_files(root: Path, files: list[Path], captions: dict[str, str], config: FolderConfig) -> Iterator[RawSample | Drop]:
    for path in files:
        name = path.relative_to(root).as_posix()
        extension = path.suffix[1:].lower()
        if extension not in IMAGE_EXTENSIONS:
            if extension != "txt" and name not in CAPTION_TABLES:
                yield Drop(name, "file of a kind that is not read", "member")
            continue
        try:
            yield _read_sample(path, name, captions, config)
        except OSError as error:
            yield Drop(name, f"file cannot be read ({type(error).__name__})")


def _read_sample(path: Path, name: str, captions: dict[str, str], config: FolderConfig) -> RawSample | Drop:
    caption_file = path.with_suffix(".txt")
    if caption_file.is_file():
        caption = _read_at_most(caption_file, config.max_file_bytes)
    elif name in captions:
        caption = captions[name].encode("utf-8", "surrogatepass")
    else:
        return Drop(name, "no caption")
    image = _read_at_most(path, config.max_file_bytes)
    if image is None or caption is None:
        return Drop(name, "file is too large")
    return RawSample(safe_key(name), name, image, caption)


def _read_at_most(path: Path, limit: int) -> bytes | None:
    """Return the content of a file; None if it has more than `limit` bytes, whatever its size was when it was listed."""
    with path.open("rb") as file:
        content = file.read(limit + 1)
    return content if len(content) <= limit else None


def _read_caption_tables(root: Path, config: FolderConfig) -> dict[str, str]:
    """Return captions by relative file name from captions.csv and captions.jsonl, where they exist.

    All captions are held in memory (about 200 bytes a row): data sets of many millions of images belong in tars.

    Raises:
        ValueError: a table cannot be read, or lacks one of the two fields.
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
