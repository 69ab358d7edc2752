"""Reading and writing of the subset of the tar format that shards use: plain ustar headers with short names.

Own code instead of `tarfile` because it is ten times faster, which matters: a loader opens every shard of every modality in
every epoch. The bytes are those of `tarfile`, and any tar reader can read them. Archives from elsewhere are read by
`ingestion/sources/archives.py`.
"""

import tarfile
from collections.abc import Iterable, Iterator
from functools import cache

BLOCK = tarfile.BLOCKSIZE  # bytes; a header is one block, contents are padded to blocks
RECORD = tarfile.RECORDSIZE  # bytes; an archive is padded to records
# byte ranges in a ustar header (POSIX.1-1988)
NAME, SIZE, CHECKSUM, TYPE = slice(0, 100), slice(124, 135), slice(148, 156), slice(156, 157)

AGAIN = "Run the stage that writes it again."  # what to do about a damaged shard


@cache
def _header_template() -> bytes:
    """Return the header of an empty plain file: mode 644, owner 0, time 0, no name."""
    return tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)


def header(name: str, size: int) -> bytes:
    """Return the header of a plain file as `tarfile` writes it; only name, size and checksum differ from the template."""
    block = bytearray(_header_template())
    block[: len(name)] = name.encode("ascii")
    block[SIZE] = b"%011o" % size
    block[CHECKSUM] = b" " * 8  # the checksum is computed with spaces in its own field
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block)


def size_of(sizes: Iterable[int]) -> int:
    """Return the bytes of a shard whose members have these sizes in bytes."""
    size = sum(BLOCK + -(-one // BLOCK) * BLOCK for one in sizes) + 2 * BLOCK
    return -(-size // RECORD) * RECORD


def members(path: object, content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield key and bytes of each member of a shard that `shards.write_shard` wrote.

    Args:
        path: location of the shard, for error messages.
        content: the bytes of the shard.

    Raises:
        ValueError: the content is not a complete archive of plain files.
    """
    position = 0
    while position + BLOCK <= len(content) and content[position] != 0:
        block = content[position : position + BLOCK]
        key, _, extension = block[NAME].rstrip(b"\0").decode("ascii", "replace").partition(".")
        try:
            size = int(block[SIZE], 8)
        except ValueError as error:
            raise ValueError(f"{path} is not a shard: no tar header at byte {position}. {AGAIN}") from error
        position += BLOCK
        if block[TYPE] != b"0" or not extension or position + size > len(content):
            raise ValueError(
                f"{path}, sample {key!r}: the tar is cut off or contains something that is not a plain file. {AGAIN}"
            )
        yield key, content[position : position + size]
        position += -(-size // BLOCK) * BLOCK
    if position >= len(content):
        raise ValueError(f"{path} is cut off: a tar must end with two empty blocks. {AGAIN}")
