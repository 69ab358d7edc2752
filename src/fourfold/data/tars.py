"""The part of the tar format that shards use: plain ustar headers with short names, written and read without ceremony.

Equal to what `tarfile` writes, byte for byte, and read by any tar reader; ten times faster, which counts because the loader
opens every shard of every modality in every epoch. Archives from elsewhere go through `tarfile` (see `sources.py`).
"""

import tarfile
from collections.abc import Iterator
from functools import cache

BLOCK = tarfile.BLOCKSIZE  # bytes; headers are one block, contents are padded to blocks
RECORD = tarfile.RECORDSIZE  # bytes; a whole archive is padded to records


@cache
def _header_template() -> bytes:
    """Return the ustar header of an empty plain file of mode 644, owned by nobody, from the year 1970; its name is empty."""
    return tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)


def header(name: str, size: int) -> bytes:
    """Return what `tarfile` writes as header of a plain file, ten times faster: only name, size and checksum differ."""
    block = bytearray(_header_template())
    block[: len(name)] = name.encode("ascii")
    block[124:135] = b"%011o" % size
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block)


def members(path: object, content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield key and bytes of each member of a shard that `write_shard` wrote.

    `path` is only named in errors. Raises ValueError when the content is anything but a whole archive of plain files.
    """
    position = 0
    while position + BLOCK <= len(content) and content[position] != 0:
        block = content[position : position + BLOCK]
        member, _, kind = block[:100].rstrip(b"\0").decode("ascii", "replace").partition(".")
        try:
            size = int(block[124:135], 8)
        except ValueError as error:
            raise ValueError(f"{path} is not a shard: no tar header at byte {position}.") from error
        position += BLOCK
        if block[156:157] != b"0" or not kind or position + size > len(content):
            raise ValueError(f"{path}, sample {member!r}: the tar is cut off or holds something that is not a plain file.")
        yield member, content[position : position + size]
        position += -(-size // BLOCK) * BLOCK
    if position >= len(content):
        raise ValueError(f"{path} is cut off: a tar ends in two empty blocks.")
