"""Perceptual hashes of photographs, the measured threshold, and images of `train` that leak into evaluation."""

import io
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from fourfold.data.ingestion.card import data_card
from fourfold.data.ingestion.cleaning import split_of
from fourfold.data.ingestion.images import CleaningConfig
from fourfold.data.ingestion.ingest import IngestionConfig, ingest, ingestion_report
from fourfold.data.ingestion.near_duplicates import DISTANCE, HashIndex, perceptual_hash
from fourfold.data.ingestion.sources.files import safe_key

sys.path.insert(0, str(Path(__file__).parents[3] / "support"))
from photographs import PICTURES

SIDE = 64


def as_jpeg(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


COPIES = {
    "jpeg": lambda image: as_jpeg(image, 50),
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
}


@pytest.fixture(scope="module")
def crops():
    """Up to nine crops of each photograph; some overlap."""
    rng, found = np.random.default_rng(0), []
    for path in PICTURES.values():
        picture = Image.open(path).convert("RGB")
        for _ in range(9):
            side = int(rng.integers(120, min(picture.size)))
            left, top = int(rng.integers(picture.width - side)), int(rng.integers(picture.height - side))
            found.append(picture.crop((left, top, left + side, top + side)))
    return [crop for crop in found if hash_of(crop) is not None]  # some show nothing but sky


def hash_of(image):
    return perceptual_hash(np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)))


@pytest.mark.parametrize("change", sorted(COPIES))
def test_nearly_all_copies_of_a_photograph_are_within_the_threshold(crops, change):
    distances = np.array([(hash_of(crop) ^ hash_of(COPIES[change](crop))).bit_count() for crop in crops])
    assert (distances <= DISTANCE).mean() > 0.95 and np.median(distances) <= 2


def test_other_photographs_are_beyond_the_threshold(crops):
    pairs = [(hash_of(one) ^ hash_of(other)).bit_count() for one, other in combinations(crops, 2)]
    assert np.mean([distance <= DISTANCE for distance in pairs]) < 0.002  # crops of one photograph that overlap
    assert np.median(pairs) > 24


def test_flat_images_have_no_hash():
    assert perceptual_hash(np.full((16, 16, 3), 77, np.uint8)) is None


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=20),
    st.integers(0, 2**64 - 1),
    st.sets(st.integers(0, 63), max_size=12),
    st.integers(0, 10),
)
def test_the_index_finds_what_comparing_with_all_finds(hashes, wanted, flipped, max_distance):
    hashes = [*hashes, wanted ^ sum(1 << bit for bit in flipped)]
    index = HashIndex(max_distance)
    index.add(hashes)
    assert index.has_near(wanted) == any((one ^ wanted).bit_count() <= max_distance for one in hashes)


@pytest.fixture(scope="module")
def leaking(crops, tmp_path_factory):
    """40 photographs, and a compressed copy of an image of test as an image of train."""
    folder = tmp_path_factory.mktemp("leaking")
    shares = {"val": 0.2, "test": 0.2}
    for number, crop in enumerate(crops[:40]):
        crop.save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(f"photograph {number}")
    original = next(n for n in range(40) if split_of(safe_key(f"{n:02}.png"), shares) == "test")
    copy = next(name for name in (f"copy{n}.jpg" for n in range(50)) if split_of(safe_key(name), shares) == "train")
    as_jpeg(crops[original], 60).save(folder / copy, quality=60)
    (folder / copy).with_suffix(".txt").write_text("a copy")
    return folder, safe_key(copy)


def settings_of(folder, **leakage):
    return IngestionConfig(
        source={"kind": "folder", "path": str(folder)},
        cleaning=CleaningConfig(),
        image_size=SIDE,
        val_share=0.2,
        test_share=0.2,
        leakage=leakage or None,
    )


def keys_of_train(config, out):
    shards = ingest(config, 0, out)
    return set(shards.keys("train")), ingestion_report(out)


def test_copies_of_evaluation_images_leave_the_training_split(leaking, tmp_path):
    folder, copy = leaking
    before, report = keys_of_train(settings_of(folder), tmp_path / "a")
    assert copy in before and "leakage" not in report
    removed, report = keys_of_train(settings_of(folder, max_distance=DISTANCE), tmp_path / "b")
    assert copy not in removed and report["leakage"]["found"] == len(before - removed)
    assert report["by_source"]["source"]["removals_dropped"] == {"near-duplicate of an evaluation image": len(before - removed)}
    assert report["drop_share"] == 0.0  # a rule of the settings is no fault of the source
    assert "near-duplicates of one of" in data_card(settings_of(folder), report)
    kept, report = keys_of_train(settings_of(folder, remove=False), tmp_path / "c")
    assert kept == before and report["leakage"]["found"] >= 1 and not report["leakage"]["removed"]


def test_images_of_a_further_evaluation_set_are_found(leaking, crops, tmp_path):
    folder, _ = leaking
    before, _ = keys_of_train(settings_of(folder, max_distance=0), tmp_path / "a")
    chosen = sorted(key for key in before if key[:2].isdigit())[0]
    (tmp_path / "benchmark" / "val").mkdir(parents=True)
    as_jpeg(crops[int(chosen[:2])], 70).save(tmp_path / "benchmark" / "val" / "x.jpg")
    (tmp_path / "benchmark" / "broken.jpg").write_bytes(b"no image")
    after, report = keys_of_train(settings_of(folder, against=(str(tmp_path / "benchmark"),)), tmp_path / "b")
    assert chosen not in after and report["leakage"]["found"] >= 1
    with pytest.raises(ValueError, match=r"'/nowhere' does not exist"):
        ingest(settings_of(folder, against=("/nowhere",)), 0, tmp_path / "c")
