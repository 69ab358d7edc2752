"""The tar reader against Python's tarfile on valid archives, and on damaged and hostile ones."""

import gzip
import io
import tarfile
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.data.ingestion.sources import Drop, RawSample
from fourfold.data.ingestion.sources.archives import MAX_EXTENSION_HEADERS, ArchiveError, TarReader, open_archive
from tests.fourfold.data.crawls import drops, image_bytes, members_of, read_source, samples, write_tar

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
QUICK = 60.0  # seconds, for archives of a few kilobytes on a busy machine; those that hang do so for minutes
NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=40)
PATHS = st.lists(NAMES, min_size=1, max_size=6).map("/".join)
KINDS = [
    tarfile.REGTYPE,
    tarfile.AREGTYPE,
    tarfile.CONTTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.DIRTYPE,
    tarfile.CHRTYPE,
]


def ours(content):
    """Return name, kind and content of each member as our reader gives them."""
    reader = TarReader(io.BytesIO(content), len(content))
    return [(one.name.rstrip("/"), one.is_file, reader.read() if one.is_file else b"") for one in reader]


def theirs(content):
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return [
            (one.name, one.isreg(), archive.extractfile(one).read() if one.isreg() else b"") for one in archive.getmembers()
        ]


@st.composite
def archives(draw):
    """Bytes of a tar that tarfile wrote: any names, kinds of members, extra pax records, global headers before a member."""
    buffer = io.BytesIO()
    kind = draw(st.sampled_from(FORMATS))
    records = {"comment": draw(NAMES)} if kind == tarfile.PAX_FORMAT and draw(st.booleans()) else {}
    with tarfile.open(fileobj=buffer, mode="w", format=kind, pax_headers=records) as archive:
        for name in draw(st.lists(PATHS, min_size=bool(records), max_size=6)):
            member = tarfile.TarInfo(name)
            member.type = draw(st.sampled_from(KINDS))
            if member.type == tarfile.AREGTYPE and len(name.encode()) > tarfile.LENGTH_NAME:
                member.type = tarfile.REGTYPE  # tarfile reads a folder if the part of the name in the header ends with a slash
            content = draw(st.binary(max_size=1_500)) if member.isreg() else b""
            member.size, member.linkname = len(content), draw(PATHS) if member.issym() or member.islnk() else ""
            member.pax_headers = {"comment": draw(NAMES), "mtime": "1.5"} if kind == tarfile.PAX_FORMAT else {}
            try:
                archive.addfile(member, io.BytesIO(content))
            except ValueError:  # a name too long for ustar
                assert kind == tarfile.USTAR_FORMAT
    return buffer.getvalue()


def test_long_name_whose_start_ends_with_a_slash_is_a_file():
    """The old type of a file with a slash at the end is a folder, but the part of a long name in the header says nothing."""
    buffer = io.BytesIO()
    name = "a" * (tarfile.LENGTH_NAME - 1) + "/x.png"
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.type, member.size = tarfile.AREGTYPE, 3
        archive.addfile(member, io.BytesIO(b"abc"))
    assert ours(buffer.getvalue()) == [(name, True, b"abc")]


@settings(max_examples=150, deadline=None)
@given(archives())
def test_members_equal_those_of_tarfile(content):
    assert ours(content) == theirs(content)


@settings(max_examples=200, deadline=None)
@given(archives(), st.data())
def test_damaged_archives_end_quickly_with_a_named_reason(content, data):
    """Overwrite any bytes, cut anywhere; headers get valid checksums again, so that the damage is reached."""
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        block = 512 * data.draw(st.integers(0, len(damaged) // 512 - 1))
        place = block + data.draw(st.sampled_from([0, 100, 124, 135, 148, 156, 257, 345, 482, 504]))
        damaged[place : place + 12] = data.draw(st.binary(min_size=12, max_size=12))
        if data.draw(st.booleans()):
            damaged[block + 148 : block + 156] = b" " * 8
            damaged[block + 148 : block + 156] = b"%06o\0 " % sum(damaged[block : block + 512])
    del damaged[data.draw(st.integers(512, len(content))) :]
    start = time.perf_counter()
    try:
        for _, _, member in ours(bytes(damaged)):
            assert len(member) <= len(damaged)
    except ArchiveError as error:
        assert str(error).startswith(("archive damaged: ", "archive cut off"))
    assert time.perf_counter() - start < QUICK


def header(kind=tarfile.REGTYPE, name="x.png", size=b"00000000000\0"):
    """One header with a valid checksum and any size field."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[124:136], block[156:157], block[148:156] = size, kind, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(records, kind=b"x"):
    return header(kind, "pax", b"%011o\0" % len(records)) + records + bytes(-len(records) % 512)


NEGATIVE = b"\xff" * 11 + b"\x80"
DIGITS = b"9" * 900_000
PADDED_SIZE = b"%d size=%s\n" % (len(DIGITS) + 13, DIGITS)
HOSTILE = {
    "negative size": (header(size=NEGATIVE), "a number in a header is negative or not a number"),
    "signed octal size": (header(size=b"-0000001000\0"), "a number in a header is negative or not a number"),
    "underscores in a size": (header(size=b"0000_000010\0"), "a number in a header is negative or not a number"),
    "negative size of an extension": (header(b"x", size=NEGATIVE), "a number in a header is negative or not a number"),
    "negative pax size": (pax(b"14 size=-1024\n") + header(), "a number in a header is negative or not a number"),
    "huge size": (header(size=b"\x80" + b"\xff" * 11), "archive cut off"),
    "huge extension": (header(b"L", size=b"77777777777\0"), "an extension header above 1048576 bytes"),
    "many digits in a pax size": (pax(PADDED_SIZE) + header(), "a number in a header is negative or not a number"),
    "many digits in a pax length": (pax(DIGITS + b" path=x\n") + header(), "not a pax header"),
    "pax length zero": (pax(b"0 path=x\n") + header(), "not a pax header"),
    "pax length beyond the header": (pax(b"99 path=x\n") + header(), "not a pax header"),
    "chain of pax headers": (pax(b"10 path=x\n") * 5_000 + header(), f"more than {MAX_EXTENSION_HEADERS} extension headers"),
    "chain of long names": (pax(b"x", b"L") * 5_000 + header(), f"more than {MAX_EXTENSION_HEADERS} extension headers"),
    "chain of empty headers": (header(b"K") * 5_000 + header(), f"more than {MAX_EXTENSION_HEADERS} extension headers"),
    "endless sparse map": (header(b"S")[:482] + b"\1" + header(b"S")[483:], "not a tar header where one must be"),
    "joined tars": (bytes(10_240) + header(), "it continues after its end marker"),
    "end marker of one block": (bytes(512) + header(), "it continues after its end marker"),
    "unfinished download": (bytes(2 << 20), "archive cut off or padded: more than 1 MiB of zeros at its end"),
    "text": (b"<html>" * 200, "not a tar header where one must be"),
    "nothing": (b"", "archive is empty"),
    "xz": (b"\xfd7zXZ\0" + bytes(600), "archive is in xz format; tar and tar with gzip are read"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archive_is_one_counted_loss_that_names_it(tmp_path, case):
    content, reason = HOSTILE[case]
    good = write_tar(tmp_path / "good.tar", members_of([1])).read_bytes()[: 4 * 512]  # one sample before the damage
    path = tmp_path / "bad.tar"
    path.write_bytes((good if reason.startswith(("a number", "more", "an ext", "not a pax")) else b"") + content + bytes(1024))
    if case == "nothing":
        path.write_bytes(b"")
    start = time.perf_counter()
    found = read_source({"kind": "webdataset", "path": str(path)})
    assert time.perf_counter() - start < QUICK
    assert len(samples(found)) == path.read_bytes().startswith(good)
    ((name, told, unit),) = drops(found)
    assert (name, unit) == ("bad.tar", "archive") and reason in told


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.tar.gz"])
def test_gzip_is_read_whatever_the_name(tmp_path, name):
    plain = write_tar(tmp_path / "plain.tar", members_of(range(3)))
    wanted = read_source({"kind": "webdataset", "path": str(plain)})
    plain.rename(tmp_path / "plain")
    (tmp_path / name).write_bytes(gzip.compress((tmp_path / "plain").read_bytes()))
    assert read_source({"kind": "webdataset", "path": str(tmp_path)}) == wanted and len(samples(wanted)) == 3


def test_damaged_gzip_gives_its_whole_samples_and_reports_the_loss(tmp_path):
    content = gzip.compress(write_tar(tmp_path / "whole.tar", members_of(range(4))).read_bytes())
    for size in range(10, len(content), 97):
        (tmp_path / "whole.tar").write_bytes(content[:size])
        found = read_source({"kind": "webdataset", "path": str(tmp_path)})
        assert [item.what for item in found if isinstance(item, Drop)][-1] == "archive"
    noise = bytearray(content)
    noise[len(noise) // 2 : len(noise) // 2 + 40] = bytes(40)
    (tmp_path / "whole.tar").write_bytes(noise)
    assert "archive cut off or damaged" in drops(read_source({"kind": "webdataset", "path": str(tmp_path)}))[-1][1]


def test_gzip_that_expands_without_end_is_a_counted_loss(tmp_path, monkeypatch):
    monkeypatch.setattr("fourfold.data.ingestion.sources.archives.MIN_GZIP_LIMIT", 1 << 20)
    content = header(b"V", size=b"77777777777\0") + bytes(1 << 24)
    (tmp_path / "bomb.tar").write_bytes(gzip.compress(content, 1))
    (drop,) = drops(read_source({"kind": "webdataset", "path": str(tmp_path)}))
    assert drop == ("bomb.tar", "archive expands to more than 200 times its size", "archive")
    many = (header(b"V", size=b"00010000000\0") + bytes(1 << 21)) * 8
    (tmp_path / "bomb.tar").write_bytes(gzip.compress(many, 9))
    *_, drop = drops(read_source({"kind": "webdataset", "path": str(tmp_path)}))
    assert drop == ("bomb.tar", "archive expands to more than 200 times its size", "archive")


def test_names_that_are_not_utf8_are_read(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        for name, content in (("café.png", image_bytes(1)), ("café.txt", b"a small cafe")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    (sample,) = read_source({"kind": "webdataset", "path": str(path)})
    assert isinstance(sample, RawSample) and sample.caption == b"a small cafe" and sample.name == "caf\udce9"


def test_whatever_is_raised_inside_an_archive_is_a_counted_loss(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", members_of([1]))
    write_tar(tmp_path / "b.tar", members_of([2]))
    first = [True]

    def fail(reader):
        if first.pop() if first else False:
            raise KeyError("anything")
        return original(reader)

    original = TarReader.read
    monkeypatch.setattr(TarReader, "read", fail)
    found = read_source({"kind": "webdataset", "path": str(tmp_path)})
    assert drops(found) == [("a.tar", "archive cannot be read (KeyError)", "archive")] and len(samples(found)) == 1


def test_other_archives_are_named(tmp_path):
    write_tar(tmp_path / "a.tar", members_of([1]))
    with tarfile.open(tmp_path / "b.tar.bz2", "w:bz2"):
        pass
    found = read_source({"kind": "webdataset", "path": str(tmp_path)})
    assert drops(found) == [("b.tar.bz2", "archive is in bzip2 format; tar and tar with gzip are read", "archive")]
    with open_archive(tmp_path / "a.tar") as archive:
        assert len(list(archive)) == 2
