"""Tars as a source."""

import os
import tarfile

import pytest
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
    folder = tarfile.TarInfo("part")
    folder.type = tarfile.DIRTYPE  # no loss: the files of a folder are separate members
    found = read(write_tar(tmp_path / "a.tar", [*bad, *members_of([1])], [folder, link, device]))
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


@pytest.mark.parametrize("content", [b'{"caption": ["one", "two", "one"]}', b'["one", "two", "one"]'])
def test_list_of_texts_in_the_json_is_several_captions(tmp_path, content):
    (sample,) = samples(read(write_tar(tmp_path / "a.tar", [("x.png", b"i"), ("x.json", content)])))
    assert [sample.caption, *sample.further] == [b"one", b"two", b"one"]


@pytest.mark.parametrize(
    "content", [b'{"caption": ["one", null]}', b'["one", 3]', b"[]", b'{"caption": []}', b'{"caption": {"a": "b"}}']
)
def test_list_that_holds_anything_but_texts_is_no_caption(tmp_path, content):
    found = read(write_tar(tmp_path / "a.tar", [("x.png", b"i"), ("x.json", content)]))
    assert samples(found) == [] and drops(found) == [("x", "no caption", "sample")]


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
    assert len(samples(found)) == 1 and drops(found)[0][1:] == (
        "archive damaged: not a tar header where one must be",
        "archive",
    )


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


def test_names_with_several_dots_are_read_by_setting_or_named(tmp_path):
    members = [("a.v1.png", image_bytes(1)), ("a.v1.txt", b"one"), ("a.v2.png", image_bytes(2)), ("a.v2.TXT", b"two")]
    path = write_tar(tmp_path / "a.tar", members)
    hidden = write_tar(tmp_path / "hidden.tar", [("._a.png", b"x"), *members_of([1])])
    for dots in (False, True):
        assert drops(read(hidden, dots_in_keys=dots)) == [("._a.png", "hidden member", "member")]
    assert {(reason[:27], unit) for _, reason, unit in drops(read(path))} == {("member with several dots in", "member")}
    assert [(s.name, s.caption) for s in read(path, dots_in_keys=True)] == [("a.v1", b"one"), ("a.v2", b"two")]


def test_inner_names_are_read_by_setting(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("1.input.png", image_bytes(1)), ("1.caption.txt", b"one"), ("1.mask.png", b"m")])
    options = {"image_extension": "input.png", "caption_extension": ".caption.txt"}
    found = read(path, **options)
    assert [(s.name, s.caption, s.image) for s in samples(found)] == [("1", b"one", image_bytes(1))] and len(drops(found)) == 1
    dotted = write_tar(tmp_path / "b.tar", [("x.1.input.png", image_bytes(1)), ("x.1.caption.txt", b"one")])
    assert [s.name for s in read(dotted, dots_in_keys=True, **options)] == ["x.1"]


def test_images_in_formats_that_are_not_read_are_named(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("a.heic", b"x"), ("a.txt", b"one"), *members_of([1])])
    assert drops(read(path)) == [("a.heic", "image format .heic is not read", "member"), ("a", "no image", "sample")]


@pytest.mark.parametrize("kinds", [(".png", ".txt"), (".txt", ".png")])
def test_members_of_a_sample_need_not_be_adjacent(tmp_path, kinds):
    members = members_of(range(6))
    by_kind = [member for kind in kinds for member in members if member[0].endswith(kind)]
    found = read(write_tar(tmp_path / "a.tar", by_kind))
    assert [(s.image, s.caption) for s in samples(found)] == [(image_bytes(n), f"photo number {n}".encode()) for n in range(6)]
    assert not drops(found)


def test_samples_that_wait_for_their_members_have_a_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("fourfold.data.ingestion.sources.webdataset.MAX_WAITING_BYTES", 3 * (len(image_bytes(0)) + 500))
    members = members_of(range(6))
    by_kind = [member for kind in (".png", ".txt") for member in members if member[0].endswith(kind)]
    found = read(write_tar(tmp_path / "a.tar", by_kind))
    lost = [("no caption", "sample"), ("member too far from the image of its sample", "member")]
    assert 0 < len(samples(found)) < 6
    assert sorted(d[1:] for d in drops(found)) == sorted(lost * (6 - len(samples(found))))
    whole = read(write_tar(tmp_path / "b.tar", members))  # adjacent members never wait
    assert len(samples(whole)) == 6


def test_a_text_far_from_a_sample_with_a_caption_is_no_lost_sample(tmp_path):
    members = [("x.png", image_bytes(1)), ("x.json", b'{"caption": "j"}'), *members_of([2]), ("x.txt", b"late")]
    found = read(write_tar(tmp_path / "a.tar", members))
    assert [s.caption for s in samples(found)] == [b"j", b"photo number 2"]
    assert drops(found) == [("x", "member apart from its sample, which was complete", "member")]
