"""Images in shards as PNG, JPEG or WebP."""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourfold.data import codecs
from fourfold.data.ingestion.images import CleaningConfig
from fourfold.data.ingestion.ingest import IngestionConfig, ingest, ingestion_report
from fourfold.data.shards import ShardSet
from fourfold.metrics.dense import psnr
from tests.fourfold.data.ingestion.test_annotations import columns

sys.path.insert(0, str(Path(__file__).parents[3] / "support"))
from photographs import write_photographs


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder, 30)
    return folder


def ingested(folder, out, **storage) -> ShardSet:
    source = {"kind": "folder", "path": str(folder)}
    shares = {"val_share": 0.2, "test_share": 0.2}
    config = IngestionConfig(source=source, cleaning=CleaningConfig(), image_size=64, storage=storage, **shares)
    return ingest(config, 0, out)


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_equal_pixels_in_other_files_are_duplicates(photographs, tmp_path, image_format):
    copies = shutil.copytree(photographs, tmp_path / "photographs")
    for number, path in enumerate(sorted(copies.rglob("*.jpg"))[:4]):
        with Image.open(path) as image:
            image.convert("RGB").save(copies / f"copy{number}.webp", lossless=True)
            image.convert("RGB").rotate(180).save(copies / f"other{number}.png")
        for name in (f"copy{number}", f"other{number}"):
            (copies / f"{name}.txt").write_text("once more")
    ingested(copies, tmp_path / "out", format=image_format)
    assert ingestion_report(tmp_path / "out")["dropped"] == {"duplicate image": 4}


@pytest.mark.parametrize(("image_format", "extension"), [("jpeg", "jpg"), ("webp", "webp")])
def test_photographs_are_smaller_and_nearly_the_same(photographs, tmp_path, image_format, extension):
    plain = ingested(photographs, tmp_path / "png")
    small = ingested(photographs, tmp_path / "small", format=image_format, quality=90)
    again = ingested(photographs, tmp_path / "again", format=image_format, quality=90)
    assert again.digest() == small.digest() != plain.digest()
    images = [{k: v for k, (v,) in columns(shards, "rgb").items()} for shards in (plain, small)]
    assert images[0].keys() == images[1].keys()
    stacked = [np.stack([one[key] for key in images[0]]) for one in images]
    assert 30 < psnr(*stacked) < 60
    sizes = [sum(len(c) for _, c in s.read_bytes("train", "rgb", "shard-00000.tar")) for s in (plain, small)]
    assert sizes[1] < 0.6 * sizes[0]
    members = (tmp_path / "small" / "shards" / "train" / "rgb" / "shard-00000.tar").read_bytes()
    assert f".{extension}\0".encode() in members[:512]


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_stored_images_are_what_pillow_decodes(image_format):
    rgb = np.kron(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    content = codecs.encode_image(rgb, image_format, 80)
    assert np.array_equal(codecs.decode("rgb", content), np.asarray(Image.open(io.BytesIO(content))))
    with pytest.raises(ValueError, match=r"not a 'rgb'"):
        codecs.decode("rgb", content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"not a 'semseg'"):
        codecs.decode("semseg", content)
