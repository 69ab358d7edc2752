"""A folder of images as a source."""

import csv
import io
import json
import os
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.data.ingestion.sources.caption_tables import MAX_CAPTIONS
from tests.fourfold.data.crawls import drops, image_bytes, read_source, samples, write_folder

NO_IMAGE = "row of a caption table without an image of this name"


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
    assert [s.caption for s in samples(found)] == [b"one, with comma"]
    assert drops(found) == [("../../etc/passwd", NO_IMAGE, "row"), ("2.png", "no caption", "sample")]


@pytest.mark.parametrize(
    ("table", "text"),
    [("captions.csv", "a,b\n1.png,x\n"), ("captions.jsonl", '{"file": 1\n'), ("captions.jsonl", "[1]\n")],
)
def test_unreadable_table_is_an_error_that_names_the_fields(tmp_path, table, text):
    (tmp_path / "1.png").write_bytes(image_bytes(1))
    (tmp_path / table).write_text(text)
    with pytest.raises(ValueError, match=rf"{table} is not a caption table with fields 'file' and 'caption'"):
        read(tmp_path)


def table_of(folder, name, content, images=("a.png", "b.png", "c.png", "d.png", "e.png", "f.png")):
    """A folder of images with one caption table."""
    for number, image in enumerate(images):
        (folder / image).parent.mkdir(parents=True, exist_ok=True)
        (folder / image).write_bytes(image_bytes(number))
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return read(folder)


def captions(found):
    return {s.name: s.caption.decode() for s in samples(found)}


def test_only_text_is_a_caption(tmp_path):
    values = [None, 3, 1.5, ["a dog"], True, {"en": "a dog"}, "a dog"]
    images = [f"{number}.png" for number in range(len(values) + 1)]
    rows = [{"file": image, "caption": value} for image, value in zip(images, values, strict=False)] + [{"file": "7.png"}]
    found = table_of(tmp_path, "captions.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows), images)
    assert captions(found) == {"6.png": "a dog"}
    kinds = ["null", "number", "number", "list", "true or false", "object"]
    wanted = [(f"{number}.png", f"no caption ({kind} in the table)", "sample") for number, kind in enumerate(kinds)]
    assert drops(found) == [*wanted, ("7.png", "no caption (short row in the table)", "sample")]


def test_rows_of_another_length_are_not_captions(tmp_path):
    found = table_of(
        tmp_path, "captions.csv", "file,caption\na.png,a dog\nb.png\nc.png,a dog, running\n", ["a.png", "b.png", "c.png"]
    )
    assert captions(found) == {"a.png": "a dog"}
    assert drops(found) == [
        ("b.png", "no caption (short row in the table)", "sample"),
        ("c.png", "no caption (row with more fields than the first line in the table)", "sample"),
    ]


def test_rows_that_name_no_image_are_counted(tmp_path):
    lines = [
        '{"file": "a.png", "caption": "one"}',
        '{"file": "x.png", "caption": "none"}',
        '{"file": 3, "caption": "none"}',
        "[1]",
    ]
    found = table_of(tmp_path, "captions.jsonl", "\n".join([*lines, '{"file": "b.png", "capt']), ["a.png"])
    assert captions(found) == {"a.png": "one"}
    assert drops(found) == [
        ("x.png", NO_IMAGE, "row"),
        ("captions.jsonl, row 3", "row of a caption table without a file name", "row"),
        ("captions.jsonl, row 4", "row of a caption table that is not an object", "row"),
        ("captions.jsonl, row 5", "row of a caption table that is not JSON", "row"),
    ]


def test_all_captions_of_an_image_are_kept_in_the_order_of_text_file_and_rows(tmp_path):
    rows = "file,caption\n" + "".join(f"{n}.png,{n} take {k}\n" for k in range(5) for n in "ab") + "a.png,a take 0\n"
    found = table_of(tmp_path, "captions.csv", rows, ["a.png", "b.png"])
    texts = {s.name: [text.decode() for text in (s.caption, *s.further)] for s in samples(found)}
    assert texts == {f"{n}.png": [f"{n} take {k}" for k in range(5)] for n in "ab"} and drops(found) == []
    (tmp_path / "a.caption").write_text("from a.caption")
    (tmp_path / "a.png.txt").write_text("from a.png.txt")
    first = samples(read(tmp_path))[0]
    assert [first.caption, *first.further][:3] == [b"from a.caption", b"from a.png.txt", b"a take 0"]


def test_rows_of_one_image_have_a_limit(tmp_path):
    rows = "file,caption\n" + "".join(f"a.png,take {k}\n" for k in range(MAX_CAPTIONS + 2))
    found = table_of(tmp_path, "captions.csv", rows, ["a.png"])
    assert len(samples(found)[0].further) == MAX_CAPTIONS - 1
    assert drops(found) == [("a.png", "image has more than 100 rows with captions", "caption")] * 2


ROWS = [("a.png", "one thing"), ("b.png", "two things")]
LINES = "".join(f"{file},{text}\n" for file, text in ROWS)
OBJECTS = [{"file": file, "caption": text} for file, text in ROWS]


@pytest.mark.parametrize(
    ("table", "content"),
    [
        ("metadata.jsonl", "".join(json.dumps({"file_name": f, "text": t}) + "\n" for f, t in ROWS)),
        ("metadata.csv", "file_name,text\n" + LINES),
        ("captions.csv", "image,text\n" + LINES),
        ("captions.csv", "file;caption\n" + LINES.replace(",", ";")),
        ("captions.tsv", "file\tcaption\n" + LINES.replace(",", "\t")),
        ("captions.json", json.dumps(OBJECTS)),
        ("captions.csv", "file,caption\n" + "".join(f"./{f},{t}\n" for f, t in ROWS)),
        ("captions.jsonl", b"\xef\xbb\xbf" + "\r\n\r\n".join(map(json.dumps, OBJECTS)).encode() + b"\r\n \n"),
    ],
)
def test_usual_forms_of_tables_are_read(tmp_path, table, content):
    found = table_of(tmp_path, table, content, ["a.png", "b.png"])
    assert captions(found) == dict(ROWS) and drops(found) == []


@pytest.mark.parametrize("written", ["sub\\{}", "sub/{}", "{}", ".//sub/./{}"])
def test_images_in_sub_folders_are_matched(tmp_path, written):
    rows = "file,caption\n" + "".join(f"{written.format(f)},{t}\n" for f, t in ROWS)
    found = table_of(tmp_path, "captions.csv", rows, ["sub/a.png", "sub/b.png"])
    assert captions(found) == {f"sub/{f}": t for f, t in ROWS} and drops(found) == []


def test_table_in_a_sub_folder_names_the_images_of_this_folder(tmp_path):
    found = table_of(tmp_path, "one/captions.csv", "file,caption\n" + LINES, ["one/a.png", "two/a.png", "one/b.png"])
    assert captions(found) == {f"one/{f}": t for f, t in ROWS} and drops(found) == [("two/a.png", "no caption", "sample")]


def test_file_name_alone_does_not_match_two_images(tmp_path):
    found = table_of(tmp_path, "captions.csv", "file,caption\n" + LINES, ["one/a.png", "two/a.png", "one/b.png"])
    assert captions(found) == {"one/b.png": "two things"} and ("a.png", NO_IMAGE, "row") in drops(found)


def test_unicode_forms_of_names_are_equal(tmp_path):
    image, other = unicodedata.normalize("NFD", "bild-ü.png"), unicodedata.normalize("NFD", "café.png")
    (tmp_path / unicodedata.normalize("NFC", "café.txt")).write_text("a café")
    found = table_of(tmp_path, "captions.csv", "file,caption\nbild-ü.png,ein Bild\n", [image, other])
    assert sorted(captions(found).values()) == ["a café", "ein Bild"] and drops(found) == []


def test_table_without_the_fields_is_an_error_with_the_columns(tmp_path):
    with pytest.raises(ValueError, match=r"columns found: 'a.png', 'one thing'\. Name the columns in its first line"):
        table_of(tmp_path, "captions.csv", LINES, ["a.png"])
    (tmp_path / "captions.csv").unlink()
    assert drops(table_of(tmp_path, "metadata.csv", "id,size\n1,2\n", ["a.png"]))[0] == (
        "metadata.csv", "file of a kind that is not read", "member",
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcx"), st.none() | st.integers() | st.text(max_size=12)), max_size=8), st.booleans()
)
def test_every_row_is_a_caption_or_counted(tmp_path_factory, rows, as_csv):
    folder = tmp_path_factory.mktemp("table")
    if as_csv:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerows([("file", "caption"), *((f"{n}.png", value) for n, value in rows)])
        content, rows = text.getvalue().encode("utf-8", "surrogatepass"), [(n, "" if v is None else str(v)) for n, v in rows]
    else:
        content = "".join(json.dumps({"file": f"{n}.png", "caption": value}) + "\n" for n, value in [("a", "first"), *rows])
        rows = [("a", "first"), *rows]
    found = table_of(folder, "captions.csv" if as_csv else "captions.jsonl", content, ["a.png", "b.png", "c.png"])
    texts = {n: list(dict.fromkeys(v for m, v in rows if m == n and isinstance(v, str))) for n in "abc"}
    read_texts = {
        s.name[0]: [text.decode("utf-8", "surrogatepass") for text in (s.caption, *s.further)] for s in samples(found)
    }
    assert read_texts == {n: t for n, t in texts.items() if t}
    lost = drops(found)
    assert sum(unit == "row" for _, _, unit in lost) == sum(n == "x" for n, _ in rows)
    assert sum(unit == "sample" for _, _, unit in lost) == sum(not t for t in texts.values())
    assert not any(unit == "caption" for _, _, unit in lost)


def test_text_files_in_other_spellings_are_read(tmp_path):
    for number, (image, text) in enumerate(
        [("a.JPG", "a.TXT"), ("b.png", "b.png.txt"), ("c.png", "c.caption"), ("d.jfif", "d.txt")]
    ):
        (tmp_path / image).write_bytes(image_bytes(number))
        (tmp_path / text).write_text(text)
    (tmp_path / "a.txt").write_text("this one counts")
    assert captions(read(tmp_path)) == {
        "a.JPG": "this one counts", "b.png": "b.png.txt", "c.png": "c.caption", "d.jfif": "d.txt",
    }  # fmt: skip


def test_near_samples_are_counted(tmp_path):
    write_folder(tmp_path, [1])
    for name in ("phone.heic", "vector.SVG", "phone.txt", "letter.txt", "sheet.xlsx", ".DS_Store", ".a.JPG", ".b.txt"):
        (tmp_path / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert drops(read(tmp_path)) == [
        (".a.JPG", "hidden file", "member"),
        ("pipe.jpg", "no regular file (a pipe, a socket or a device)", "member"),
        ("letter.txt", "text file without an image", "member"),  # that of phone.heic is lost with it
        ("phone.heic", "image format .heic is not read", "sample"),
        ("sheet.xlsx", "file of a kind that is not read", "member"),
        ("vector.SVG", "image format .svg is not read", "sample"),
    ]
