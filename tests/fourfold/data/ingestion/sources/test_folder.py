"""A folder of images as a source."""

import json

import pytest

from tests.fourfold.data.crawls import drops, image_bytes, read_source, samples, write_folder


def read(path, **options):
    return read_source({"kind": "folder", "path": str(path), **options})


def test_folder_is_read_with_sub_folders_and_txt_files(tmp_path):
    write_folder(tmp_path / "trip", [1, 2])
    (tmp_path / "IMG.2020.JPG").write_bytes(b"i")
    (tmp_path / "IMG.2020.txt").write_bytes(b"dotted name")
    (tmp_path / "alone.png").write_bytes(b"i")
    (tmp_path / "notes.pkl").write_bytes(b"cos\nsystem\n")
    (tmp_path / ".DS_Store").write_bytes(b"")
    found = read(tmp_path)
    assert [(s.name, s.caption) for s in samples(found)] == [
        ("IMG.2020.JPG", b"dotted name"),
        ("trip/photo00001.png", b"photo number 1"),
        ("trip/photo00002.png", b"photo number 2"),
    ]
    assert drops(found) == [("alone.png", "no caption", "sample"), ("notes.pkl", "file of a kind that is not read", "member")]


@pytest.mark.parametrize("table", ["captions.csv", "captions.jsonl"])
def test_captions_from_a_table(tmp_path, table):
    for n in (1, 2):
        (tmp_path / f"{n}.png").write_bytes(image_bytes(n))
    rows = [{"file": "1.png", "caption": "one, with comma"}, {"file": "../../etc/passwd", "caption": "no"}]
    text = (
        'file,caption\n1.png,"one, with comma"\n../../etc/passwd,no\n'
        if table.endswith("csv")
        else "\n".join(map(json.dumps, rows))
    )
    (tmp_path / table).write_text(text)
    found = read(tmp_path)
    assert [s.caption for s in samples(found)] == [b"one, with comma"] and drops(found) == [("2.png", "no caption", "sample")]


@pytest.mark.parametrize(
    ("table", "text"),
    [("captions.csv", "image,text\n1.png,x\n"), ("captions.jsonl", '{"file": 1\n'), ("captions.jsonl", "[1]\n")],
)
def test_unreadable_table_is_an_error_that_names_the_fields(tmp_path, table, text):
    (tmp_path / "1.png").write_bytes(image_bytes(1))
    (tmp_path / table).write_text(text)
    with pytest.raises(ValueError, match=rf"{table} is not a caption table with fields 'file' and 'caption'"):
        read(tmp_path)
