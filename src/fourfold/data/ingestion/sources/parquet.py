"""Parquet files with images, as Hugging Face datasets store them: a column of structs {bytes, path}, or of bytes.

Nothing is unpickled and no path leads out of the folder of the source. A row group is read in batches, so memory does not grow
with the file. Class labels, which are numbers there, get the names that the schema has for them.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow
from pyarrow import parquet

from fourfold.data.ingestion.sources.caption_tables import CAPTION_FIELDS
from fourfold.data.ingestion.sources.digests import digest_and_version
from fourfold.data.ingestion.sources.files import FilesConfig, after_drops, inner_path, printable, safe_key
from fourfold.data.ingestion.sources.listing import list_files, spread
from fourfold.data.ingestion.sources.source import Drop, RawSample, SampleStream, Source, SourceContext, SourceSlice

ENDINGS = (".parquet",)
IMAGE_FIELDS = ("image", "jpg", "png", "img", "picture")  # if `image_field` is not set
LIST_FIELDS = ("captions", "sentences", "texts")  # of several captions, if `caption_field` is not set
BATCH_ROWS = 64
ESTIMATED_FILES = 100  # whose rows stand for those of all files
SCHEMA_KEY = b"huggingface"
SHOWN_COLUMNS = 10


class ParquetConfig(FilesConfig):
    """Settings of Parquet files with images."""

    kind: Literal["parquet"] = "parquet"
    image_field: str | None = None  # column of the image; None: `image`, or else a usual name
    caption_field: str | None = None  # column of a text or of a list of texts; None: `caption`, or else a usual name
    max_row_bytes: int = 200_000_000  # of the values of a row together, as decompressed


class ParquetSource(Source):
    """Reads the Parquet files of a folder and its sub-folders, or below a URL, in the order of their names."""

    title = "Parquet files with images"
    config_class = ParquetConfig

    def open(self, config: ParquetConfig, context: SourceContext) -> list[SampleStream]:  # noqa: D102
        listing = list_files(config, ENDINGS, "archive", ())
        _check_columns(listing.files[0], config)
        names = {
            path: (path.relative_to(listing.root).as_posix() if path != listing.root else path.name) for path in listing.files
        }
        files = [_File(path, name, listing.root, config, tuple(sorted(context.fields))) for path, name in names.items()]
        slices = [SourceSlice(printable(file.name), partial(_read_file, file)) for file in files]
        digest, version = digest_and_version(listing.root, listing.files, config, context)
        return [SampleStream("source", config.path, after_drops(listing.skipped, slices), digest, version=version)]

    def count(self, config: ParquetConfig, split_of: Callable[[str], str]) -> None:
        """Check that there is a file with images. Rows are not counted: their keys decide the split."""
        _check_columns(list_files(config, ENDINGS, "archive", ()).files[0], config)

    def estimate(self, config: ParquetConfig) -> int | None:
        """Return the number of rows, by the footers of some files; None behind an address."""
        if "://" in config.path:
            return None
        files = list_files(config, ENDINGS, "archive", ()).files
        rows = [count for count in map(_num_rows, spread(files, ESTIMATED_FILES)) if count is not None]
        return round(sum(rows) / len(rows) * len(files)) if rows else None


@dataclass(frozen=True)
class _File:
    """One file, its name below the root, and which metadata are read."""

    path: Path
    name: str
    root: Path
    config: ParquetConfig
    fields: tuple[str, ...]


@dataclass(frozen=True)
class _Columns:
    """Which columns of a file are read, and the names of class labels by column."""

    image: str
    caption: str | None
    others: tuple[str, ...]
    class_names: dict[str, list[str]]


def _num_rows(path: Path) -> int | None:
    """Return the number of rows of a file; None if it is damaged."""
    try:
        return int(parquet.read_metadata(path).num_rows)
    except (pyarrow.ArrowException, OSError, EOFError):
        return None


def _check_columns(path: Path, config: ParquetConfig) -> None:
    """Raise ValueError if a readable file has no column of images; a damaged one is a loss that reading counts."""
    try:
        with path.open("rb") as stream:
            schema = parquet.read_schema(stream)
    except (pyarrow.ArrowException, OSError, EOFError):
        return
    _columns(schema, config, ())


def _columns(schema: pyarrow.Schema, config: ParquetConfig, fields: Sequence[str]) -> _Columns:
    """Return the columns to read; raises ValueError with those that there are."""
    image = next(
        (name for name in ([config.image_field] if config.image_field else IMAGE_FIELDS) if name in schema.names), None
    )
    if image is None or not _holds_images(schema.field(image).type):
        shown = ", ".join(f"{field.name} ({_short(field.type)})" for field in list(schema)[:SHOWN_COLUMNS])
        raise ValueError(
            f"source.path {config.path!r} has no column of images; columns found: {shown or 'none'}. A column of images has "
            "bytes, or structs with the fields bytes and path. Set source.image_field."
        )
    names = [config.caption_field] if config.caption_field else [*CAPTION_FIELDS, *LIST_FIELDS]
    caption = next((name for name in names if name in schema.names), None)
    if config.caption_field and caption is None:
        raise ValueError(
            f"source.caption_field is {config.caption_field!r}; the columns of {config.path!r} are "
            f"{', '.join(schema.names[:SHOWN_COLUMNS])}. Choose one of them."
        )
    others = tuple(name for name in fields if name in schema.names and name not in (image, caption))
    return _Columns(image, caption, others, _class_names(schema, others))


def _holds_images(kind: pyarrow.DataType) -> bool:
    if pyarrow.types.is_struct(kind):
        return any(kind.field(i).name in ("bytes", "path") for i in range(kind.num_fields))
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _short(kind: pyarrow.DataType) -> str:
    text = str(kind)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _class_names(schema: pyarrow.Schema, fields: Sequence[str]) -> dict[str, list[str]]:
    """Return the names of the values of class labels, from the metadata that Hugging Face's library writes; see ClassLabel."""
    try:
        features = json.loads((schema.metadata or {}).get(SCHEMA_KEY, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    found = {name: features.get(name) for name in fields} if isinstance(features, dict) else {}
    return {
        name: [str(one) for one in feature["names"]]
        for name, feature in found.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)
    }


def _read_file(file: _File) -> Iterator[RawSample | Drop]:
    """Yield the samples of one file. Whatever is raised inside becomes a counted loss that names it."""
    try:
        with file.path.open("rb") as stream, parquet.ParquetFile(stream, pre_buffer=False) as table:
            yield from _read_rows(file, table)
    except (MemoryError, ConnectionError, TimeoutError):  # a fault of the machine or its network: no loss of the source
        raise
    except Exception as error:
        yield Drop(file.path.name, f"Parquet file cannot be read ({type(error).__name__})", "archive")


def _read_rows(file: _File, table: parquet.ParquetFile) -> Iterator[RawSample | Drop]:
    columns = _columns(table.schema_arrow, file.config, file.fields)
    wanted = [name for name in (columns.image, columns.caption, *columns.others) if name is not None]
    number = 0
    for batch in table.iter_batches(BATCH_ROWS, columns=wanted):
        for index in range(batch.num_rows):
            yield _sample(file, columns, batch.slice(index, 1).to_pylist()[0], f"{file.name}#{number}")
            number += 1


def _sample(file: _File, columns: _Columns, row: dict[str, Any], name: str) -> RawSample | Drop:
    image = _image(file, row[columns.image])
    if isinstance(image, str):
        return Drop(name, image)
    if len(image) > file.config.max_file_bytes:
        return Drop(name, "file is too large")
    captions = _texts(row[columns.caption]) if columns.caption else []
    metadata = {field: _named(row[field], columns.class_names.get(field)) for field in columns.others if row[field] is not None}
    first = next(iter(captions), None)
    return RawSample(safe_key(name), name, image, first, metadata, captions[1:])


def _image(file: _File, value: Any) -> bytes | str:
    """Return the bytes of an image, embedded or beside the file, or the reason why there are none."""
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(content, bytes) and content:
        return content
    if not isinstance(path, str) or not path:
        return "no image"
    if (relative := inner_path(path)) is None:
        return "path of the image leads out of the source"
    try:
        with file.path.parent.joinpath(relative).open("rb") as stream:
            return stream.read(file.config.max_file_bytes + 1)
    except OSError as error:
        return f"file of the image cannot be read ({type(error).__name__})"


def _texts(value: Any) -> list[bytes]:
    """Return the texts of a value: a text, or a list of texts or of objects with the field `raw`, as COCO's copies have."""
    values = value if isinstance(value, list) else [value]
    texts = [one.get("raw") if isinstance(one, dict) else one for one in values]
    return [text.encode("utf-8", "surrogatepass") for text in texts if isinstance(text, str)]


def _named(value: Any, names: list[str] | None) -> Any:
    """Return a value of metadata; the name of a class label."""
    is_label = names is not None and isinstance(value, int) and not isinstance(value, bool)
    return names[value] if is_label and names is not None and 0 <= value < len(names) else value
