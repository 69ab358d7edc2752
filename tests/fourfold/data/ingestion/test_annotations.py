"""Images without captions, and annotations that come with a source."""

import json

import pytest

from fourfold.data.annotations import ANNOTATIONS, AnnotationConfig
from fourfold.data.captions import captions_of
from fourfold.data.fact_tables import fact_table
from fourfold.data.ingestion.images import CleaningConfig
from fourfold.data.ingestion.ingest import IngestionConfig, ingest, ingestion_report
from fourfold.data.shards import ShardSet
from tests.fourfold.data.crawls import image_bytes, members_of, write_folder, write_tar

OPTIONAL = CleaningConfig(min_side=16, captions="optional")


def ingested(path, out, cleaning=OPTIONAL, kind="folder", **source) -> ShardSet:
    source = {"kind": kind, "path": str(path), **source}
    shares = {"val_share": 0.3, "test_share": 0.3}
    return ingest(IngestionConfig(source=source, cleaning=cleaning, image_size=16, samples_per_shard=8, **shares), 0, out)


def columns(shards: ShardSet, *names) -> dict:
    return {s["__key__"]: [s[n] for n in names] for split in shards.splits() for s in shards.iterate(split, names)}


def write_images(folder, count, start=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        (folder / f"{number}.png").write_bytes(image_bytes(number))


def test_images_without_captions_are_kept_and_counted_where_captions_are_optional(tmp_path):
    write_folder(tmp_path / "in", range(12))
    write_images(tmp_path / "in", 8, 100)
    (tmp_path / "in" / "100.txt").write_bytes(b"\xff\xfe")  # no text
    found = columns(ingested(tmp_path / "in", tmp_path / "out"), "caption")
    assert sum(not caption for (caption,) in found.values()) == 8 and len(found) == 20
    report = ingestion_report(tmp_path / "out")
    assert report["dropped"] == {} and sum(report["by_source"]["source"]["captions_dropped"].values()) == 8
    assert report["by_source"]["source"]["captions_dropped"]["no caption"] == 7


def test_a_source_of_images_alone_is_ingested(tmp_path):
    write_images(tmp_path / "in", 20)
    shards = ingested(tmp_path / "in", tmp_path / "out")
    assert {caption for (caption,) in columns(shards, "caption").values()} == {""}
    assert shards.modalities("train") == ["caption", "rgb"]
    assert (tmp_path / "out" / "truth").is_dir() and list((tmp_path / "out" / "truth").iterdir())


def test_images_without_captions_are_dropped_where_captions_are_required(tmp_path):
    write_folder(tmp_path / "in", range(20))
    write_images(tmp_path / "in", 1, 100)
    required = CleaningConfig(min_side=16)
    assert len(columns(ingested(tmp_path / "in", tmp_path / "out", required), "caption")) == 20
    assert ingestion_report(tmp_path / "out")["dropped"] == {"no caption": 1}


def test_a_caption_table_that_fits_no_image_is_an_error_even_where_captions_are_optional(tmp_path):
    write_images(tmp_path / "in", 20)
    (tmp_path / "in" / "captions.csv").write_text("file,caption\n" + "".join(f"photo-{n}.png,a text\n" for n in range(20)))
    with pytest.raises(ValueError, match=r"No image of .* although there is a caption table: 20 × row of a caption table"):
        ingested(tmp_path / "in", tmp_path / "out")


def test_annotations_of_a_table_of_class_folders_and_of_tars(tmp_path):
    write_images(tmp_path / "in" / "cats", 10)
    write_images(tmp_path / "in" / "dogs", 10, 10)
    rows = [
        {"file_name": "cats/0.png", "question": "how many?", "answer": 1, "second_caption": "ein  Bild", "caption": "one cat"},
        {"file_name": "cats/0.png", "question": "which color?", "answer": "black"},
        {"file_name": "dogs/10.png", "question": "how many?", "answer": None},
    ]
    (tmp_path / "in" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shards = ingested(tmp_path / "in", tmp_path / "out", class_folders=True)
    found = [note for (note,) in columns(shards, ANNOTATIONS).values()]
    assert sorted(note["category"] for note in found) == ["cats"] * 10 + ["dogs"] * 10
    (one,) = (note for note in found if "questions" in note)
    assert one["questions"] == [["how many?", "1"], ["which color?", "black"]] and one["captions"] == ["ein Bild"]
    assert {row["modality"] for row in fact_table(shards)} == {"rgb", "caption"}  # expectations about images and captions hold

    members = [(name.replace(".txt", ".cls"), b"7" if name.endswith(".txt") else c) for name, c in members_of(range(20))]
    shards = ingested(write_tar(tmp_path / "a.tar", members), tmp_path / "tars", kind="webdataset")
    assert {note["category"] for (note,) in columns(shards, ANNOTATIONS).values()} == {"7"}


def test_samples_without_an_annotation_have_an_empty_one(tmp_path):
    write_folder(tmp_path / "in", range(20))
    (tmp_path / "in" / "metadata.csv").write_text("file_name,label\nphoto00003.png,3\nphoto00004.png,\n")
    shards = ingested(tmp_path / "in", tmp_path / "out")
    found = columns(shards, ANNOTATIONS, "caption")
    assert sum(bool(note) for note, _ in found.values()) == 1
    assert {caption for _, caption in found.values()} == {f"photo number {n}" for n in range(20)}


def test_what_is_no_text_is_no_annotation():
    metadata = {"label": True, "question": ["a?", "b?", "c?"], "answer": ["", "x", {"no": 1}], "second_caption": "y" * 1001}
    assert AnnotationConfig().read(metadata) == {"questions": [["b?", "x"]]}
    assert AnnotationConfig(category=("kind",)).read({"kind": 0, "class": "no"}) == {"category": "0"}
    assert AnnotationConfig().read({"class": ["", "a\ud800b"]}) == {"category": "a?b"}


def test_several_captions_stay_beside_annotations(tmp_path):
    write_images(tmp_path / "in", 20)
    rows = [{"file_name": f"{n}.png", "text": f"take {k} of {n}", "label": n % 2} for n in range(20) for k in range(3)]
    (tmp_path / "in" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = columns(ingested(tmp_path / "in", tmp_path / "out"), "caption", ANNOTATIONS)
    assert {len(captions_of(caption)) for caption, _ in found.values()} == {3}
    assert {note["category"] for _, note in found.values()} == {"0", "1"}
