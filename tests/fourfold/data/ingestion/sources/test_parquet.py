"""Parquet files in the form that Hugging Face's library writes, and damaged ones."""

import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from fourfold.data.annotations import AnnotationConfig
from fourfold.data.ingestion.images import CleaningConfig
from fourfold.data.ingestion.ingest import IngestionConfig, ingest, ingestion_report
from fourfold.data.ingestion.sources import SOURCES, SourceContext
from fourfold.data.ingestion.sources.parquet import ParquetConfig
from tests.fourfold.data.crawls import drops, image_bytes, samples

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}


def write_table(path, rows, schema, features=FEATURES):
    """Write rows as `datasets.Dataset.to_parquet` does: features in the metadata of the schema, images as structs."""
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, schema=pa.schema(schema, metadata=metadata))
    parquet.write_table(table, path, row_group_size=5)
    return path


def read(path, **options):
    config = ParquetConfig(path=str(path), **options)
    context = SourceContext(0, path, fields=AnnotationConfig().fields)
    streams = SOURCES.get("parquet").open(config, context)
    return [item for stream in streams for part in stream.slices for item in part.read()]


def embedded(number):
    return {"bytes": image_bytes(number), "path": f"{number}.png"}


def test_embedded_images_captions_and_class_names(tmp_path):
    rows = [{"image": embedded(n), "text": f"number {n}", "label": n % 2} for n in range(12)]
    schema = [("image", IMAGE), ("text", pa.string()), ("label", pa.int64())]
    write_table(tmp_path / "data" / "train-00000-of-00001.parquet", rows, schema)
    found = read(tmp_path)
    assert [s.caption for s in samples(found)] == [f"number {n}".encode() for n in range(12)] and not drops(found)
    assert [s.image for s in samples(found)] == [image_bytes(n) for n in range(12)]
    assert [s.metadata["label"] for s in samples(found)] == ["cat", "dog"] * 6
    assert len({s.key for s in samples(found)}) == 12


def test_several_captions_bytes_and_images_beside_the_file(tmp_path):
    rows = [{"jpg": image_bytes(n), "captions": [f"first {n}", f"second {n}"]} for n in range(3)]
    write_table(tmp_path / "a.parquet", rows, [("jpg", pa.binary()), ("captions", pa.list_(pa.string()))], {})
    assert [(s.caption, s.further) for s in samples(read(tmp_path / "a.parquet"))] == [
        (f"first {n}".encode(), [f"second {n}".encode()]) for n in range(3)
    ]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.png").write_bytes(image_bytes(7))
    paths = ["x.png", "gone.png", "../a.parquet", "/etc/passwd", None]
    rows = [{"image": {"bytes": None, "path": path}, "sentences": [{"raw": "a text"}]} for path in paths]
    sentences = pa.list_(pa.struct([("raw", pa.string())]))
    write_table(tmp_path / "b" / "b.parquet", rows, [("image", IMAGE), ("sentences", sentences)])
    found = read(tmp_path / "b")
    assert [(s.image, s.caption) for s in samples(found)] == [(image_bytes(7), b"a text")]
    assert [reason for _, reason, _ in drops(found)] == [
        "file of the image cannot be read (FileNotFoundError)",
        "path of the image leads out of the source",
        "path of the image leads out of the source",
        "no image",
    ]


def test_nulls_and_large_images_are_counted(tmp_path):
    rows = [{"image": None, "text": "a"}, {"image": embedded(1), "text": None}, {"image": embedded(2), "text": "b"}]
    write_table(tmp_path / "a.parquet", rows, [("image", IMAGE), ("text", pa.string())])
    found = read(tmp_path)
    assert [s.caption for s in samples(found)] == [b"b"]
    assert [(reason, what) for _, reason, what in drops(found)] == [("no image", "sample"), ("no caption", "sample")]
    assert [r for _, r, _ in drops(read(tmp_path, max_file_bytes=1_000)) if "large" in r] == (
        ["file is too large"] * sum(len(image_bytes(n)) > 1_000 for n in (1, 2))
    )


def test_a_table_without_images_is_an_error_that_names_the_columns(tmp_path):
    write_table(tmp_path / "a.parquet", [{"url": "u", "text": "t"}], [("url", pa.string()), ("text", pa.string())])
    with pytest.raises(ValueError, match=r"no column of images; columns found: url \(string\), text \(string\)"):
        read(tmp_path)
    write_table(tmp_path / "a.parquet", [{"image": embedded(0), "text": "t"}], [("image", IMAGE), ("text", pa.string())])
    with pytest.raises(ValueError, match=r"caption_field is 'title'; the columns of .* are image, text"):
        read(tmp_path, caption_field="title")


def test_damaged_files_are_counted_and_the_others_ingested(tmp_path):
    rows = [{"image": embedded(n), "text": f"number {n}", "label": n % 2} for n in range(40)]
    schema = [("image", IMAGE), ("text", pa.string()), ("label", pa.int64())]
    whole = write_table(tmp_path / "in" / "a.parquet", rows, schema).read_bytes()
    (tmp_path / "in" / "b.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "c.parquet").write_bytes(b"PAR1")
    config = IngestionConfig(
        source={"kind": "parquet", "path": str(tmp_path / "in")},
        cleaning=CleaningConfig(min_side=16),
        image_size=16,
        val_share=0.2,
        test_share=0.2,
        max_drop_share=0.7,
    )
    shards = ingest(config, 0, tmp_path / "out")
    assert sum(shards.num_samples(split) for split in shards.splits()) == 40
    assert sum(ingestion_report(tmp_path / "out")["by_source"]["source"]["archives_dropped"].values()) == 2
    notes = [sample["annotations"] for split in shards.splits() for sample in shards.iterate(split, ["annotations"])]
    assert sorted(note["category"] for note in notes) == ["cat"] * 20 + ["dog"] * 20
