"""Fuzz the reader of tars from elsewhere, guided by coverage: `python tests/torture/fuzz_archives.py -max_total_time=600`.

Needs atheris, which is not installed with the project (130 MB): `pip install atheris`. Options are those of libFuzzer. An input
on which the reader hangs, raises anything but ArchiveError, or returns more bytes than it was given ends the program, and is
kept in a file that the last lines name.
"""

import io
import sys
import tarfile

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["fourfold.data.ingestion.sources.archives"]):
    from fourfold.data.ingestion.sources.archives import ArchiveError, TarReader

BLOCK, MAGIC = 512, slice(257, 262)
REASONS = ("archive damaged: ", "archive cut off", "archive expands")
DEFAULTS = ("-timeout=5", "-rss_limit_mb=2048", f"-max_len={24 * BLOCK}")


def with_checksums(content: bytes) -> bytes:
    """Return the blocks with the checksum of each that looks like a header: random bytes would never pass it."""
    blocks = bytearray(content)
    for start in range(0, len(blocks) - BLOCK + 1, BLOCK):
        block = memoryview(blocks)[start : start + BLOCK]
        if block[MAGIC] == b"ustar":
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return bytes(blocks)


def read(content: bytes) -> None:
    """Read all members; raises AssertionError if the reader breaks a promise."""
    blocks, total = with_checksums(content), 0
    reader = TarReader(io.BytesIO(blocks), len(blocks))
    try:
        for _ in reader:
            total += len(reader.read())
    except ArchiveError as error:
        assert str(error).startswith(REASONS), error
    assert total <= len(blocks)


def example(kind: int) -> bytes:
    """Return a small tar in one of the three formats, with long names, a link, a folder and pax records."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for name, type_ in (("a.png", tarfile.REGTYPE), ("link", tarfile.SYMTYPE), ("folder", tarfile.DIRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.size = type_, 9 * (type_ == tarfile.REGTYPE)
            member.pax_headers = {"comment": "x", "size": "9"} if kind == tarfile.PAX_FORMAT and member.size else {}
            archive.addfile(member, io.BytesIO(b"123456789"))
        if kind != tarfile.USTAR_FORMAT:
            archive.addfile(tarfile.TarInfo("n" * 300))
    return buffer.getvalue()[: 24 * BLOCK]


def mutated(content: bytes, max_size: int, seed: int) -> bytes:
    """Return a mutation of an input; an empty input is replaced by an example, so that no corpus is needed."""
    start = content if len(content) > BLOCK else example(seed % 3)
    return bytes(atheris.Mutate(start[:max_size], max_size))


if __name__ == "__main__":
    given = {argument.partition("=")[0] for argument in sys.argv}
    options = [option for option in DEFAULTS if option.partition("=")[0] not in given]
    atheris.Setup([*sys.argv, *options], read, custom_mutator=mutated)
    atheris.Fuzz()
