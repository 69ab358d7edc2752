"""Tars as a source."""

import os
import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.data.ingestion.sources import Drop, RawSample
from tests.fourfold.data.crawls import drops, image_bytes, members_of, read_source, samples, write_tar


def read(path, **options):
    return read_source({"kind": "webdataset", "path": str(path), **options})


def test_tars_are_read_in_order_of_names(tmp_path):
    write_tar(tmp_path / "00001.tar", members_of([2]))
    write_tar(
        tmp_path / "00000.tar", [*members_of([0]), ("a/b.jpg", b"j"), ("a/b.json", b'{"caption": "from json", "url": "u"}')]
    )
    (tmp_path / "00000_stats.json").write_text("{}")
    (tmp_path / ".partial-1-00002.tar").write_bytes(b"unfinished")
    found = read(tmp_path)
    assert [(s.name, s.caption) for s in found] == [
        ("photo00000", b"photo number 0"),
        ("a/b", b"from json"),
        ("photo00002", b"photo number 2"),
    ]
    assert found[0].image == image_bytes(0) and found[1].metadata["url"] == "u"


def test_txt_precedes_json_and_broken_json_is_ignored(tmp_path):
    path = write_tar(
        tmp_path / "a.tar",
        [("x.json", b'{"caption": "j"}'), *members_of([1]), ("y.json", b"{" * 10_000), ("y.png", b"i"), ("y.txt", b"t")],
    )
    assert drops(read(path)) == [("x", "no image", "sample")]
    assert [s.caption for s in samples(read(path))] == [b"photo number 1", b"t"]
    deep = write_tar(tmp_path / "b.tar", [("x.json", b"[" * 200_000), ("x.png", b"i"), ("x.txt", b"t")])
    assert samples(read(deep))[0].metadata == {}


def test_sample_without_image_or_caption_is_dropped(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("x.png", b"i"), ("y.txt", b"t"), ("z.png", b"i"), ("z.json", b'{"caption": null}')])
    assert drops(read(path)) == [("x", "no caption", "sample"), ("y", "no image", "sample"), ("z", "no caption", "sample")]


def test_unsafe_members_are_not_opened(tmp_path):
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device = tarfile.TarInfo("device.png")
    device.type = tarfile.CHRTYPE
    bad = [
        ("../../x.png", b"i"),
        ("../../x.txt", b"t"),
        ("/abs.png", b"i"),
        ("..\\w.png", b"i"),
        ("a.pkl", b"cos\nsystem\n"),
        ("a.pyd", b""),
    ]
    found = read(write_tar(tmp_path / "a.tar", [*bad, *members_of([1])], [link, device]))
    assert [s.name for s in samples(found)] == ["photo00001"]
    assert drops(found) == [
        ("../../x.png", "member has an unsafe name", "member"),
        ("../../x.txt", "member has an unsafe name", "member"),
        ("/abs.png", "member has an unsafe name", "member"),
        ("..\\w.png", "member has an unsafe name", "member"),
        ("a.pkl", "member of a kind that is not read", "member"),
        ("a.pyd", "member of a kind that is not read", "member"),
        ("link.png", "member is not a plain file", "member"),
        ("device.png", "member is not a plain file", "member"),
    ]
    assert not (tmp_path.parent / "x.png").exists()


def test_member_above_the_size_limit_is_not_read(tmp_path):
    found = read(write_tar(tmp_path / "a.tar", [("x.png", bytes(5_000)), *members_of([1])]), max_file_bytes=4_000)
    assert drops(found) == [("x.png", "member is too large", "member")] and len(samples(found)) == 1


def test_repeated_key_gives_two_samples(tmp_path):
    found = read(write_tar(tmp_path / "a.tar", [*members_of([1]), *members_of([1]), *members_of([2])]))
    assert [s.key for s in found] == ["photo00001", "photo00001", "photo00002"]


def test_truncated_tar_gives_its_whole_samples_and_reports_the_loss(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", members_of(range(4))).read_bytes()
    wanted = read(tmp_path / "whole.tar")
    assert len(wanted) == 4
    for size in [*range(0, len(whole) - 9_000, 217), 512, 1024]:
        path = tmp_path / "cut.tar"
        path.write_bytes(whole[:size])
        found = read(path)
        assert samples(found)[: len(samples(found))] == wanted[: len(samples(found))]
        assert [drop for drop in found if isinstance(drop, Drop) and drop.what == "archive"], size


def test_damaged_header_is_reported(tmp_path):
    path = write_tar(tmp_path / "a.tar", members_of(range(3)))
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        place = archive.getmembers()[2].offset
    content[place : place + 20] = os.urandom(20)
    path.write_bytes(content)
    found = read(path)
    assert len(samples(found)) == 1 and drops(found)[0][1:] == ("archive cut off or damaged", "archive")


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_no_tar_makes_reading_fail(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("noise") / "a.tar"
    content = bytearray(write_tar(path, members_of(range(2))).read_bytes())
    place = data.draw(st.integers(0, 3_000))
    noise = data.draw(st.binary(max_size=600))
    content[place : place + len(noise)] = noise
    path.write_bytes(content)
    assert all(isinstance(item, RawSample | Drop) for item in read(path))
