"""Captions of a folder from tables: CSV, TSV, JSON lines, a JSON array or Parquet.

Only text is a caption; other rows are counted. Other columns are metadata of the image, as far as somebody reads them.
"""

import csv
import json
import posixpath
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from pyarrow import parquet

from fourfold.data.ingestion.sources.files import FilesConfig, printable
from fourfold.data.ingestion.sources.source import Drop

CAPTION_TABLES = ("captions.csv", "captions.tsv", "captions.jsonl", "captions.json")
# Of the ImageFolder layout of Hugging Face; may hold something else
METADATA_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_FIELDS = ("file", "file_name", "filename", "image", "image_path", "path", "filepath")  # if `file_field` is not set
CAPTION_FIELDS = ("caption", "text", "description", "TEXT")  # if `caption_field` is not set
DELIMITERS = {".csv": ",;\t", ".tsv": "\t"}  # in the order in which they are tried
SHOWN_COLUMNS = 10  # in an error message
MAX_CAPTIONS = 100  # rows of one image that are kept in memory
LONG = "\0"  # name of the fields that a row has in addition to those of the first line
KINDS = {type(None): "null", bool: "true or false", int: "number", float: "number", list: "list", dict: "object"}


@dataclass(frozen=True)
class _Bad:
    """Stands for a value that cannot be used."""

    reason: str


class TableConfig(FilesConfig):
    """Settings of a source with caption tables."""

    caption_field: str | None = None  # of the caption table; None: `caption`, or else a usual name such as `text`
    file_field: str | None = None  # of the caption table: the image; None: `file`, or else a usual name such as `file_name`


@dataclass
class TableCaptions:
    """What the tables of a folder say, by normalized name of the image. In memory: about 200 bytes a row.

    Attributes:
        captions: the different captions of each image, in the order of the rows; at most MAX_CAPTIONS.
        reasons: why an image that has rows has no caption.
        metadata: values of other columns of each image, by column, in the order of the rows; at most MAX_CAPTIONS.
        surplus: number of captions of an image beyond these.
        drops: rows that belong to no image.
    """

    captions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    surplus: dict[str, int] = field(default_factory=dict)
    drops: list[Drop] = field(default_factory=list)

    def add(self, name: str, row: "TableRow") -> None:
        """Add one row; a caption that is not text is the reason why there is none."""
        caption = row.caption
        for column, value in row.metadata.items():
            values = self.metadata.setdefault(name, {}).setdefault(column, [])
            if len(values) < MAX_CAPTIONS:
                values.append(value)
        if caption is NO_COLUMN:
            self.reasons.setdefault(name, "no caption (the table has no such column)")
        elif not isinstance(caption, str):
            kind = caption.reason if isinstance(caption, _Bad) else KINDS.get(type(caption), "no text")
            self.reasons.setdefault(name, f"no caption ({kind} in the table)")
        elif caption not in (known := self.captions.get(name, ())):
            if len(known) < MAX_CAPTIONS:
                self.captions[name] = (*known, caption)
            else:
                self.surplus[name] = self.surplus.get(name, 0) + 1


SHORT_ROW, LONG_ROW = _Bad("short row"), _Bad("row with more fields than the first line")
NO_COLUMN = _Bad("no such column")


@dataclass(frozen=True)
class TableRow:
    """One row as it stands in a table: the file that it names, its caption, and its values of the columns of interest."""

    file: Any
    caption: Any = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


def normalized(name: str) -> str:
    """Return the form in which names of images are compared: Unicode NFC, slashes, no `./`."""
    return posixpath.normpath(unicodedata.normalize("NFC", name).replace("\\", "/"))


def is_table(path: Path) -> bool:
    """Return whether a file is a caption table by its name."""
    return path.name in CAPTION_TABLES or path.name in METADATA_TABLES


def read_tables(
    root: Path, files: Sequence[Path], images: Collection[str], config: TableConfig, columns: Collection[str] = ()
) -> TableCaptions:
    """Return the captions of all tables among the files of a folder.

    Args:
        root: the folder; names in a table are relative to the folder of the table.
        files: all files of the folder.
        images: normalized names of the images, relative to the root.
        config: names of the fields.
        columns: names of other fields to keep; a table that has one of them needs no captions.

    Raises:
        ValueError: a table cannot be read, or lacks one of the two fields.
    """
    tables = TableCaptions()
    by_file_name = _by_file_name(images) if any(map(is_table, files)) else {}
    for path in filter(is_table, files):
        place = path.relative_to(root)
        try:
            for number, row in enumerate(_rows(path, _Columns(config, tuple(sorted(columns)))), 1):
                _add_row(tables, row, f"{place.as_posix()}, row {number}", place.parent.as_posix(), (images, by_file_name))
        except (ValueError, csv.Error, RecursionError, OSError) as error:  # those of Arrow are ValueErrors as well
            if path.name in METADATA_TABLES and isinstance(error, _NoFieldsError):
                tables.drops.append(Drop(place.as_posix(), "file of a kind that is not read", "member"))
                continue
            fields = f"{config.file_field or FILE_FIELDS[0]!r} and {config.caption_field or CAPTION_FIELDS[0]!r}"
            advice = "Name the columns in its first line, or set source.file_field and source.caption_field"
            raise ValueError(f"{path} is not a caption table with fields {fields}: {error}. {advice}.") from error
    return tables


class _NoFieldsError(ValueError):
    """A table has no field of files, or none of captions."""


@dataclass(frozen=True)
class _Columns:
    """Which columns are read."""

    config: TableConfig
    others: tuple[str, ...]

    def row(self, fields: tuple[str, str | None], values: Mapping[str, Any], caption: Any = None) -> TableRow:
        """Return a row of a table with these fields of file and caption."""
        file, caption_field = fields
        if caption is None:
            caption = NO_COLUMN if caption_field is None else values.get(caption_field, SHORT_ROW)
        metadata = {name: values[name] for name in self.others if isinstance(values.get(name), str | int | float)}
        return TableRow(values.get(file), caption, metadata)


def _add_row(
    tables: TableCaptions, row: TableRow, label: str, folder: str, images: tuple[Collection[str], dict[str, str]]
) -> None:
    """Add one row to the image that it names; count it if there is none."""
    names, by_file_name = images
    file = row.file
    if not isinstance(file, str) or not file:
        reason = file.reason if isinstance(file, _Bad) else "row of a caption table without a file name"
        tables.drops.append(Drop(label, reason, "row"))
        return
    name = normalized(posixpath.join(folder, normalized(file)))
    if name not in names:
        name = by_file_name.get(normalized(file), "")
    if name:
        tables.add(name, row)
    else:
        tables.drops.append(Drop(printable(file), "row of a caption table without an image of this name", "row"))


def _rows(path: Path, columns: _Columns) -> Iterator[TableRow]:
    """Yield the rows as they stand there."""
    if path.suffix in DELIMITERS:
        yield from _csv_rows(path, columns)
        return
    fields = None
    rows = parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path, columns.config.max_file_bytes)
    for row in rows:
        if fields is None:  # the first row decides whether this is a table at all
            fields = _fields(list(row), columns) if isinstance(row, dict) else None
            if fields is None:
                raise ValueError(row.reason if isinstance(row, _Bad) else "its rows are not objects")
        if isinstance(row, dict):
            yield columns.row(fields, row)
        else:
            yield TableRow(row if isinstance(row, _Bad) else _Bad("row of a caption table that is not an object"))


def _csv_rows(path: Path, columns: _Columns) -> Iterator[TableRow]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        line = file.readline(columns.config.max_file_bytes)
        errors = []
        for delimiter in DELIMITERS[path.suffix]:
            try:
                fields = _fields(next(csv.reader([line], delimiter=delimiter), []), columns)
            except _NoFieldsError as error:
                errors.append(error)
                continue
            file.seek(0)
            rows: Iterator[dict[str, Any]] = csv.DictReader(
                file, delimiter=delimiter, restkey=LONG, restval=cast(str, SHORT_ROW)
            )
            for row in rows:
                yield columns.row(fields, row, LONG_ROW if LONG in row else None)
            return
        raise errors[0]


def _json_rows(path: Path, max_bytes: int) -> Iterator[Any]:
    """Yield the rows of a JSON array or of JSON lines; a line that is not JSON is a `_Bad`."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        if path.suffix == ".json":
            text = file.read(max_bytes + 1)
            if len(text) > max_bytes:
                raise ValueError(f"it has more than {max_bytes} characters; store one object per line, in captions.jsonl")
            rows = json.loads(text)
            if not isinstance(rows, list):
                raise ValueError("it is not a JSON array")
            yield from rows
            return
        while line := file.readline(max_bytes):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                yield _Bad("row of a caption table that is not JSON")


def parquet_rows(path: Path, batch_size: int = 1_000) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file as dictionaries, with one batch in memory at a time."""
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size):
            yield from batch.to_pylist()


def _fields(found: list[str], columns: _Columns) -> tuple[str, str | None]:
    """Return the fields of file and caption; raises `_NoFieldsError` with the fields that a table has.

    Without a field of captions, a table is read if it has another column of interest.
    """
    config = columns.config
    file = next((one for one in ([config.file_field] if config.file_field else FILE_FIELDS) if one in found), None)
    caption = next((one for one in ([config.caption_field] if config.caption_field else CAPTION_FIELDS) if one in found), None)
    if file is not None and caption is None and config.caption_field is None and set(columns.others).intersection(found):
        return file, None
    if file is None or caption is None:
        shown = ", ".join(repr(printable(str(one))) for one in found[:SHOWN_COLUMNS])
        raise _NoFieldsError(f"columns found: {shown or 'none'}")
    return file, caption


def _by_file_name(images: Collection[str]) -> dict[str, str]:
    """Return the images whose file name no other image has, by this name; for tables that lack the folders."""
    result: dict[str, str] = {}
    for name in images:
        file_name = posixpath.basename(name)
        result[file_name] = "" if file_name in result else name
    return result
