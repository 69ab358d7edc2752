import json
import os
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.data.ingestion.sources import Drop, RawSample, SourceConfig, open_source, safe_key, source_digest
from fourfold.data.shards import KEY_PATTERN
from tests.fourfold.data.crawls import members_of, picture, write_folder, write_tar


def read(path, kind="webdataset", **options):
    return list(open_source(SourceConfig(kind=kind, path=str(path), **options)))


def samples(found):
    return [sample for sample in found if isinstance(sample, RawSample)]


def drops(found):
    return [(drop.name, drop.reason, drop.what) for drop in found if isinstance(drop, Drop)]


def test_tars_are_read_in_order_with_image_caption_and_metadata(tmp_path):
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
    assert found[0].image == picture(0) and found[1].metadata["url"] == "u"


def test_the_txt_wins_over_the_json_and_unreadable_json_is_no_reason_to_drop(tmp_path):
    path = write_tar(
        tmp_path / "a.tar",
        [("x.json", b'{"caption": "j"}'), *members_of([1]), ("y.json", b"{" * 10_000), ("y.png", b"i"), ("y.txt", b"t")],
    )
    assert drops(read(path)) == [("x", "no image", "sample")]
    assert [s.caption for s in samples(read(path))] == [b"photo number 1", b"t"]
    deep = write_tar(tmp_path / "b.tar", [("x.json", b"[" * 200_000), ("x.png", b"i"), ("x.txt", b"t")])
    assert samples(read(deep))[0].metadata == {}


def test_what_has_no_image_or_no_caption_is_dropped(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("x.png", b"i"), ("y.txt", b"t"), ("z.png", b"i"), ("z.json", b'{"caption": null}')])
    assert drops(read(path)) == [("x", "no caption", "sample"), ("y", "no image", "sample"), ("z", "no caption", "sample")]


def test_members_that_could_do_harm_are_not_opened(tmp_path):
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


def test_a_member_larger_than_allowed_is_not_read(tmp_path):
    found = read(write_tar(tmp_path / "a.tar", [("x.png", bytes(5_000)), *members_of([1])]), max_file_bytes=4_000)
    assert drops(found) == [("x.png", "member is too large", "member")] and len(samples(found)) == 1


def test_a_key_that_comes_twice_gives_two_samples_of_that_key_for_cleaning_to_judge(tmp_path):
    found = read(write_tar(tmp_path / "a.tar", [*members_of([1]), *members_of([1]), *members_of([2])]))
    assert [s.key for s in found] == ["photo00001", "photo00001", "photo00002"]


def test_of_a_tar_cut_anywhere_the_whole_samples_are_read_and_the_loss_is_reported(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", members_of(range(4))).read_bytes()
    wanted = read(tmp_path / "whole.tar")
    assert len(wanted) == 4
    for size in [*range(0, len(whole) - 9_000, 217), 512, 1024]:
        path = tmp_path / "cut.tar"
        path.write_bytes(whole[:size])
        found = read(path)
        assert samples(found)[: len(samples(found))] == wanted[: len(samples(found))]
        assert [drop for drop in found if isinstance(drop, Drop) and drop.what == "archive"], size


def test_a_tar_with_a_damaged_header_in_the_middle_is_reported(tmp_path):
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


def test_a_folder_gives_images_with_the_text_beside_them_in_subfolders_too(tmp_path):
    write_folder(tmp_path / "trip", [1, 2])
    (tmp_path / "IMG.2020.JPG").write_bytes(b"i")
    (tmp_path / "IMG.2020.txt").write_bytes(b"dotted name")
    (tmp_path / "alone.png").write_bytes(b"i")
    (tmp_path / "notes.pkl").write_bytes(b"cos\nsystem\n")
    (tmp_path / ".DS_Store").write_bytes(b"")
    found = read(tmp_path, "folder")
    assert [(s.name, s.caption) for s in samples(found)] == [
        ("IMG.2020.JPG", b"dotted name"),
        ("trip/photo00001.png", b"photo number 1"),
        ("trip/photo00002.png", b"photo number 2"),
    ]
    assert drops(found) == [("alone.png", "no caption", "sample"), ("notes.pkl", "file of a kind that is not read", "member")]


@pytest.mark.parametrize("table", ["captions.csv", "captions.jsonl"])
def test_captions_may_come_from_a_table(tmp_path, table):
    for n in (1, 2):
        (tmp_path / f"{n}.png").write_bytes(picture(n))
    rows = [{"file": "1.png", "caption": "one, with comma"}, {"file": "../../etc/passwd", "caption": "no"}]
    text = (
        'file,caption\n1.png,"one, with comma"\n../../etc/passwd,no\n'
        if table.endswith("csv")
        else "\n".join(map(json.dumps, rows))
    )
    (tmp_path / table).write_text(text)
    found = read(tmp_path, "folder")
    assert [s.caption for s in samples(found)] == [b"one, with comma"] and drops(found) == [("2.png", "no caption", "sample")]


@pytest.mark.parametrize(
    ("table", "text"),
    [("captions.csv", "image,text\n1.png,x\n"), ("captions.jsonl", '{"file": 1\n'), ("captions.jsonl", "[1]\n")],
)
def test_a_table_that_cannot_be_read_says_which_fields_are_wanted(tmp_path, table, text):
    (tmp_path / "1.png").write_bytes(picture(1))
    (tmp_path / table).write_text(text)
    with pytest.raises(ValueError, match=rf"{table} is not a caption table with fields 'file' and 'caption'"):
        read(tmp_path, "folder")


@pytest.mark.parametrize("kind", ["webdataset", "folder"])
def test_a_missing_path_and_an_empty_folder_say_what_is_wanted(tmp_path, kind):
    with pytest.raises(ValueError, match=r"nowhere' does not exist .* Give an existing file or folder"):
        read(tmp_path / "nowhere", kind)
    with pytest.raises(ValueError, match=rf"holds no .* file. Is source.kind '{kind}' right\?"):
        read(tmp_path, kind)
    with pytest.raises(ValueError, match=r"needs source.path"):
        SourceConfig(kind=kind)


def test_a_named_pipe_is_passed_by_and_never_waited_for(tmp_path):
    for name in ("pipe.tar", "pipe.png"):
        os.mkfifo(tmp_path / name)
    write_tar(tmp_path / "a.tar", members_of([1]))
    write_folder(tmp_path, [2])
    assert len(samples(read(tmp_path))) == len(samples(read(tmp_path, "folder"))) == 1


def test_the_digest_of_a_source_changes_with_one_byte_and_with_a_name(tmp_path):
    config = SourceConfig(kind="folder", path=str(write_folder(tmp_path / "a", [1, 2])))
    digests = [source_digest(config)]
    (tmp_path / "a" / "photo00001.txt").write_text("photo number 9")
    digests.append(source_digest(config))
    (tmp_path / "a" / "photo00001.txt").rename(tmp_path / "a" / "b.txt")
    digests.append(source_digest(config))
    assert len(set(digests)) == 3 and digests[2] == source_digest(config)


@given(st.lists(st.text(max_size=120), max_size=30, unique=True))
def test_keys_are_safe_and_differ_where_names_differ(names):
    keys = [safe_key(name) for name in names]
    assert len(set(keys)) == len(names) and all(KEY_PATTERN.fullmatch(key) for key in keys)
