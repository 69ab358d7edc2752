"""COCO captions in the form in which they are published, and other files."""

import json

import pytest

from fourfold.data.captions import captions_of
from fourfold.data.ingestion.images import CleaningConfig
from fourfold.data.ingestion.ingest import IngestionConfig, ingest
from fourfold.data.ingestion.sources.coco import CocoConfig
from tests.fourfold.data.crawls import drops, image_bytes, open_source, read_source, samples


def write_coco(root, images, annotations):
    """Files as in captions_val2017.json: info, licenses, images and annotations."""
    (root / "val2017").mkdir(parents=True, exist_ok=True)
    content = {"info": {"version": "1.0"}, "licenses": [], "images": images, "annotations": annotations}
    (root / "captions_val2017.json").write_text(json.dumps(content))
    return {"kind": "coco", "path": str(root / "val2017"), "annotations": str(root / "captions_val2017.json")}


def entry(number):
    return {"license": 4, "file_name": f"{number:012d}.jpg", "height": 16, "width": 16, "id": number}


def caption(number, text, index=0):
    return {"image_id": number, "id": 1000 * number + index, "caption": text}


def test_all_captions_of_an_image_are_kept_in_their_order(tmp_path):
    annotations = [caption(n, f"take {k} of {n}", k) for k in range(5) for n in range(30)]
    settings = write_coco(tmp_path, [entry(n) for n in range(30)], annotations)
    for number in range(30):
        (tmp_path / "val2017" / f"{number:012d}.jpg").write_bytes(image_bytes(number))
    config = IngestionConfig(
        source=settings, cleaning=CleaningConfig(min_side=16), image_size=16, val_share=0.2, test_share=0.2
    )
    shards = ingest(config, 0, tmp_path / "out")
    found = {s["__key__"]: captions_of(s["caption"]) for split in shards.splits() for s in shards.iterate(split, ["caption"])}
    assert found == {f"{n:012d}": tuple(f"take {k} of {n}" for k in range(5)) for n in range(30)}


def test_what_belongs_to_no_image_and_unsafe_names_are_counted(tmp_path):
    images = [entry(0), entry(1), {"id": 2}, {"id": 3, "file_name": "../captions_val2017.json"}]
    annotations = [caption(0, "a text"), caption(9, "of nothing"), {"image_id": 0, "bbox": [0, 0, 1, 1]}, caption(3, "no")]
    settings = write_coco(tmp_path, images, annotations)
    (tmp_path / "val2017" / f"{0:012d}.jpg").write_bytes(image_bytes(0))
    found = read_source(settings)
    assert [(s.key, s.caption) for s in samples(found)] == [(f"{0:012d}", b"a text")]
    assert drops(found) == [
        ("images[2]", "image without id and file_name", "row"),
        ("annotations[1]", "caption of an image that is not listed", "row"),
        ("annotations[2]", "annotation without a caption", "row"),
        (f"{1:012d}.jpg", "file cannot be read (FileNotFoundError)", "sample"),
        ("../captions_val2017.json", "name of the image leads out of the source", "sample"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"[1, 2]", r"lacks a list `images` or `annotations`; found: list"), (b"{", r"cannot be read: it is not JSON"),
     (b'{"images": [], "info": 1}', r"found: 'images', 'info'"), (None, r"cannot be read: No such file")],
)  # fmt: skip
def test_another_file_is_an_error_that_says_what_is_needed(tmp_path, content, message):
    (tmp_path / "val2017").mkdir()
    if content is not None:
        (tmp_path / "c.json").write_bytes(content)
    settings = {"kind": "coco", "path": str(tmp_path / "val2017"), "annotations": str(tmp_path / "c.json")}
    with pytest.raises(ValueError, match=message + r".*captions_train2017.json"):
        open_source(settings)


def test_a_changed_caption_changes_the_digest_and_the_images_are_counted_beforehand(tmp_path):
    settings = write_coco(tmp_path, [entry(0)], [caption(0, "one")])
    (tmp_path / "val2017" / f"{0:012d}.jpg").write_bytes(image_bytes(0))
    before = open_source(settings)[0].digest
    write_coco(tmp_path, [entry(0)], [caption(0, "other")])
    assert open_source(settings)[0].digest != before
    from fourfold.data.ingestion.sources import SOURCES

    assert SOURCES.get("coco").count(CocoConfig(**settings), lambda key: "val") == {"val": 1}
