"""A strict reader of tars from elsewhere: ustar, GNU and pax headers, plain or compressed with gzip.

Own code instead of `tarfile`, which loops for ever on a negative size (CVE-2025-8194), recurses on chains of extension headers
and parses numbers of any length. Here every length has a bound, every header moves the position forward, and nothing recurses:
reading takes time in proportion to the size of the archive. Links, devices and sparse files are reported, never followed.
"""

import gzip
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from fourfold.data.tars import BLOCK, CHECKSUM, NAME, TYPE

SIZE, MAGIC, PREFIX = slice(124, 136), slice(257, 263), slice(345, 500)  # byte ranges in a header; SIZE with its last byte
SPARSE_CONTINUES, EXTENT_CONTINUES = 482, 504  # bytes that are not 0 if another block of an old GNU sparse map follows
ZEROS = bytes(BLOCK)
OCTAL = re.compile(rb" *([0-7]*) *(?:\0.*)?", re.DOTALL)
PAX_LENGTH = re.compile(rb"([0-9]{1,7}) ")
PAX_SIZE = re.compile(rb"[0-9]{1,19}")
PLAIN_FILES, SPARSE, PAX, GLOBAL_PAX, LONG_NAME, LONG_LINK = b"0\x007", b"S", b"xX", b"g", b"L", b"K"
FOLDER = b"5"
WITHOUT_CONTENT = b"123456"  # links, devices, folders and pipes: no content follows, whatever size the header declares
MAX_EXTENSION_BYTES = 1 << 20  # of one pax or long-name header; usual ones have less than a kilobyte
MAX_EXTENSION_HEADERS = 16  # in a row, before the member that they describe; usual are 1 to 3
MAX_GZIP_RATIO = 200  # bytes of an archive / bytes of its gzip file; images barely shrink
MIN_GZIP_LIMIT = 64 << 20  # bytes that any gzip file may expand to
CUT_OFF, EXPANDS = "archive cut off", f"archive expands to more than {MAX_GZIP_RATIO} times its size"
MAX_PADDING = 1 << 20  # bytes of zeros after the end marker; tars are padded to records, of 10 kB unless told otherwise
SKIP_BYTES = 1 << 20  # read at once where a stream cannot seek
GZIP_MAGIC = b"\x1f\x8b"
OTHER_MAGIC = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\3\4": "zip", b"7z\xbc\xaf\x27\x1c": "7z"}


class ArchiveError(Exception):
    """An archive cannot be read further; the message is a reason from a fixed set, under which the loss is counted."""


@dataclass(frozen=True)
class Member:
    """One member of an archive.

    Attributes:
        name: its path; bytes that are not UTF-8 are surrogate escapes, as in Python's file names.
        size: bytes of its content.
        is_file: False for links, folders, devices, pipes, sparse files and unknown kinds.
        is_folder: whether it only names a folder, whose files are members of their own.
    """

    name: str
    size: int
    is_file: bool
    is_folder: bool = False


@contextmanager
def open_archive(path: Path) -> Iterator["TarReader"]:
    """Open a tar, plain or compressed with gzip, whatever its file is called.

    Raises:
        ArchiveError: it is empty or of another format.
    """
    with path.open("rb") as file:
        start, length = file.read(6), file.seek(0, io.SEEK_END)
        file.seek(0)
        if not start:
            raise ArchiveError("archive is empty")
        for magic, name in OTHER_MAGIC.items():
            if start.startswith(magic):
                raise ArchiveError(f"archive is in {name} format; tar and tar with gzip are read")
        if start.startswith(GZIP_MAGIC):
            with gzip.GzipFile(fileobj=file) as stream:
                yield TarReader(cast(IO[bytes], stream), max(MAX_GZIP_RATIO * length, MIN_GZIP_LIMIT), can_seek=False)
        else:
            yield TarReader(file, length)


class TarReader:
    """Iterates over the members of a tar; `read` returns the content of the current one."""

    def __init__(self, stream: IO[bytes], limit: int, can_seek: bool = True) -> None:
        """Start at the first byte of a stream.

        Args:
            stream: the bytes of the tar.
            limit: number of bytes of the stream, or for a compressed one the number that it may expand to.
            can_seek: whether skipping content needs no reading.
        """
        self._stream, self._limit, self._can_seek = stream, limit, can_seek
        self._position = 0  # of the stream, in bytes
        self._next_header = 0
        self._content_bytes = 0  # of the current member, until it is read
        self._global_path: str | None = None

    def __iter__(self) -> Iterator[Member]:
        """Yield the members in order; raises ArchiveError where the archive is cut off or damaged."""
        while (member := self._next_member()) is not None:
            yield member

    def read(self) -> bytes:
        """Return the content of the current member; a second call returns nothing."""
        size, self._content_bytes = self._content_bytes, 0
        return self._take(size)

    def _next_member(self) -> Member | None:
        path, size, is_sparse, kind = self._global_path, None, False, GLOBAL_PAX
        for _ in range(MAX_EXTENSION_HEADERS + 1):
            self._skip_to(self._next_header)
            block = self._take(BLOCK)
            if block == ZEROS:
                if kind != GLOBAL_PAX:
                    raise ArchiveError("archive damaged: it ends after an extension header")
                self._check_padding()
                return None
            _check_sum(block)
            kind = block[TYPE]
            if kind in PAX or kind == GLOBAL_PAX:
                records = _pax_records(self._extension(block))
                if b"path" in records:
                    path = _text(records[b"path"]) or None
                if kind == GLOBAL_PAX:
                    self._global_path = path
                else:
                    size = _pax_size(records) if b"size" in records else size
                    is_sparse = is_sparse or any(key.startswith(b"GNU.sparse") for key in records)
            elif kind == LONG_NAME:
                path = _text(_until_nul(self._extension(block)))
            elif kind == LONG_LINK:
                self._extension(block)
            else:
                return self._member(block, path, _number(block[SIZE]) if size is None else size, is_sparse)
        raise ArchiveError(f"archive damaged: more than {MAX_EXTENSION_HEADERS} extension headers in a row")

    def _check_padding(self) -> None:
        """Raise ArchiveError if anything but the padding of a record follows the end marker: it would be lost silently."""
        padding = self._stream.read(MAX_PADDING + 1)
        if padding.strip(b"\0"):
            raise ArchiveError("archive damaged: it continues after its end marker, as joined tars do; the rest is not read")
        if len(padding) > MAX_PADDING:
            raise ArchiveError(f"{CUT_OFF} or padded: more than 1 MiB of zeros at its end")

    def _member(self, block: bytes, path: str | None, size: int, is_sparse: bool) -> Member:
        """Return the member of a header, and set the position of the header after it."""
        kind, name = block[TYPE], _name(block) if path is None else path
        if kind == SPARSE:
            self._skip_sparse_map(block)
        is_folder = kind == FOLDER or (kind == b"\0" and name.endswith("/"))  # the latter before there was a type field
        size = 0 if kind in WITHOUT_CONTENT else size
        self._expect(size)
        return Member(name, size, kind in PLAIN_FILES and not is_sparse and not is_folder, is_folder)

    def _extension(self, block: bytes) -> bytes:
        """Return the content of an extension header."""
        size = _number(block[SIZE])
        if size > MAX_EXTENSION_BYTES:
            raise ArchiveError(f"archive damaged: an extension header above {MAX_EXTENSION_BYTES} bytes")
        self._expect(size)
        return self.read()

    def _expect(self, size: int) -> None:
        """Note that `size` bytes of content follow."""
        if size > self._limit - self._position:
            raise ArchiveError(CUT_OFF if self._can_seek else EXPANDS)
        self._content_bytes = size
        self._next_header = self._position + -(-size // BLOCK) * BLOCK

    def _skip_sparse_map(self, block: bytes) -> None:
        continues = block[SPARSE_CONTINUES]
        while continues:
            continues = self._take(BLOCK)[EXTENT_CONTINUES]

    def _take(self, size: int) -> bytes:
        """Return the next `size` bytes; raises ArchiveError where there are fewer."""
        content = self._stream.read(size)
        self._position += len(content)
        if len(content) < size:
            raise ArchiveError(CUT_OFF)
        if self._position > self._limit:
            raise ArchiveError(EXPANDS)
        return content

    def _skip_to(self, position: int) -> None:
        if self._can_seek:
            self._position = self._stream.seek(position, io.SEEK_SET)
        while self._position < position:
            self._take(min(SKIP_BYTES, position - self._position))


def _check_sum(block: bytes) -> None:
    """Raise ArchiveError unless a block is a header: its bytes add up to its checksum, as unsigned or as signed numbers."""
    match = OCTAL.fullmatch(block[CHECKSUM])
    wanted = int(match[1] or b"0", 8) if match else -1
    total = sum(block) - sum(block[CHECKSUM]) + 8 * ord(" ")  # the checksum is computed with spaces in its own field
    if total == wanted:
        return
    high = sum(byte > 127 for byte in block) - sum(byte > 127 for byte in block[CHECKSUM])
    if total - 256 * high != wanted:  # some old writers took bytes as signed
        raise ArchiveError("archive damaged: not a tar header where one must be")


def _number(field: bytes) -> int:
    """Return the number of a header field: octal digits, or base 256 after a byte 0x80; raises ArchiveError for others."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    if not (match := OCTAL.fullmatch(field)):
        raise ArchiveError("archive damaged: a number in a header is negative or not a number")
    return int(match[1] or b"0", 8)


def _name(block: bytes) -> str:
    """Return the name of a header; only ustar has a prefix field, GNU keeps times there."""
    name = _text(_until_nul(block[NAME]))
    prefix = _text(_until_nul(block[PREFIX])) if block[MAGIC] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _pax_records(content: bytes) -> dict[bytes, bytes]:
    """Return the records `<length> <keyword>=<value>\\n` of a pax header; raises ArchiveError if it has anything else."""
    records: dict[bytes, bytes] = {}
    position = 0
    while position < len(content) and content[position] != 0:
        match = PAX_LENGTH.match(content, position)
        end = position + int(match[1]) if match else 0
        if not match or not match.end() < end <= len(content) or content[end - 1 : end] != b"\n":
            raise ArchiveError("archive damaged: not a pax header where one must be")
        keyword, equals, value = content[match.end() : end - 1].partition(b"=")
        if not keyword or not equals:
            raise ArchiveError("archive damaged: not a pax header where one must be")
        records[keyword] = value
        position = end
    return records


def _pax_size(records: dict[bytes, bytes]) -> int:
    if not PAX_SIZE.fullmatch(records[b"size"]):
        raise ArchiveError("archive damaged: a number in a header is negative or not a number")
    return int(records[b"size"])


def _until_nul(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
