"""Near-duplicates within `train`: the search against comparing each with each, and photographs through ingestion."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from pydantic import ValidationError

from fourfold.data.ingestion import repeats
from fourfold.data.ingestion.card import data_card
from fourfold.data.ingestion.cleaning import split_of
from fourfold.data.ingestion.ingest import IngestionConfig, ingest, ingestion_report
from fourfold.data.ingestion.near_duplicates import perceptual_hash
from fourfold.data.ingestion.repeats import REPEAT, find_repeats
from fourfold.data.ingestion.sources.files import safe_key
from fourfold.data.work_split import WorkSplit

sys.path.insert(0, str(Path(__file__).parents[3] / "support"))
from photographs import PICTURES

from tests.fourfold.killing import files_of

SHARES = {"val": 0.2, "test": 0.2}


def one_by_one(hashes, max_distance):
    """Compare each hash with all that were kept before it."""
    kept, found = [], []
    for hash_ in hashes:
        is_near = hash_ is not None and any((hash_ ^ one).bit_count() <= max_distance for one in kept)
        found.append(is_near)
        kept += [hash_] if hash_ is not None and not is_near else []
    return found


@st.composite
def alike(draw):
    """Hashes around a few centers, and some images without one."""
    centers = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    flips = st.sets(st.integers(0, 63), max_size=8).map(lambda bits: sum(1 << bit for bit in bits))
    near = st.tuples(st.sampled_from(centers), flips).map(lambda pair: pair[0] ^ pair[1])
    return draw(st.lists(st.none() | near, max_size=60))


@settings(max_examples=60, deadline=None)
@given(hashes=alike(), max_distance=st.integers(0, 10))
def test_the_search_finds_what_comparing_each_with_each_finds(tmp_path_factory, hashes, max_distance):
    sizes = {"BLOCK": 16, "PART": 8, "READ": 5, "ROWS": 3, "CANDIDATES": 4}  # so that a few hashes cross all of them
    with pytest.MonkeyPatch.context() as patch:
        for name, size in sizes.items():
            patch.setattr(repeats, name, size)
        found = find_repeats(iter(hashes), max_distance, tmp_path_factory.getbasetemp())
    assert np.unpackbits(found)[: len(hashes)].astype(bool).tolist() == one_by_one(hashes, max_distance)


def test_many_equal_hashes_leave_one(tmp_path):
    found = np.unpackbits(find_repeats([5] * 30_000, 6, tmp_path))[:30_000]
    assert found.tolist() == [0] + [1] * 29_999
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """16 different crops, 10 of which have a brighter copy with other hash, with keys of `train`; and images of other splits.

    Returns the folder, the keys of the originals, and those of the copies with the original of each.
    """
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(1)
    names = iter(name for name in (f"{n:04}.png" for n in range(400)) if split_of(safe_key(name), SHARES) == "train")
    crops, hashes = [], []
    pictures = [Image.open(path).convert("RGB") for path in PICTURES.values()]
    while len(crops) < 16:
        picture = pictures[rng.integers(len(pictures))]
        left, top = int(rng.integers(picture.width - 120)), int(rng.integers(picture.height - 120))
        crop = picture.crop((left, top, left + 120, top + 120))
        hash_ = hash_of(crop)
        if hash_ is not None and all((hash_ ^ one).bit_count() > 16 for one in hashes):
            crops.append(crop)
            hashes.append(hash_)
    originals, copies = [], dict[str, str]()
    for number, crop in enumerate(crops):
        originals.append(next(names))
        crop.save(folder / originals[-1])
        for strength in (1.15, 1.3, 1.5) if number < 10 else ():
            brighter = ImageEnhance.Brightness(crop).enhance(strength)
            if 1 <= (hash_of(brighter) ^ hash_of(crop)).bit_count() <= 6:
                name = next(names)
                copies[safe_key(name)] = originals[-1]
                brighter.save(folder / name)
                break
    for n in range(400, 440):  # other splits, copies of `train` too: leakage is another rule
        if split_of(safe_key(f"{n:04}.png"), SHARES) != "train":
            noise = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / f"{n:04}.png")
    assert len(copies) >= 5
    return folder, {safe_key(name) for name in originals}, copies


def hash_of(image):
    return perceptual_hash(np.asarray(image.resize((64, 64), Image.Resampling.LANCZOS)))


def config_of(folder, **options):
    cleaning = {"captions": "optional"}
    source = {"kind": "folder", "path": str(folder)}
    return IngestionConfig(source=source, cleaning=cleaning, val_share=0.2, test_share=0.2, samples_per_shard=7, **options)


def test_the_first_of_images_that_look_alike_stays(photographs, tmp_path):
    folder, originals, copies = photographs
    shards = ingest(config_of(folder, near_duplicates={}), 0, tmp_path / "a")
    assert set(shards.keys("train")) == originals
    report = ingestion_report(tmp_path / "a")
    assert report["by_source"]["source"]["removals_dropped"] == {REPEAT: len(copies)} and report["drop_share"] == 0
    found = report["near_duplicates"]
    assert (found["found"], found["removed"], found["training_images"]) == (len(copies), True, len(originals | copies.keys()))
    assert set(found["examples"]) <= copies.keys()
    assert f"{len(copies)} of {len(originals | copies.keys())} images of `train` are near-duplicates" in data_card(
        config_of(folder, near_duplicates={}), report
    )
    # counted only, and not looked for
    shards = ingest(config_of(folder, near_duplicates={"remove": False}), 0, tmp_path / "b")
    assert set(shards.keys("train")) == originals | copies.keys()
    assert ingestion_report(tmp_path / "b")["near_duplicates"]["found"] == len(copies)
    shards = ingest(config_of(folder), 0, tmp_path / "c")
    assert set(shards.keys("train")) == originals | copies.keys() and "near_duplicates" not in ingestion_report(tmp_path / "c")


def test_shares_of_the_work_and_interruptions_change_no_byte(photographs, tmp_path, monkeypatch):
    folder, _, _ = photographs
    config = config_of(folder, near_duplicates={}, leakage={})
    whole = ingest(config, 0, tmp_path / "whole")
    for index in (1, 0):
        ingest(config, 0, tmp_path / "shares", WorkSplit(index, 2))
    with monkeypatch.context() as patch:
        patch.setattr("fourfold.data.ingestion.ingest.finish_split", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ingest(config, 0, tmp_path / "shares")
    assert files_of(ingest(config, 0, tmp_path / "shares").root) == files_of(whole.root)


def test_an_image_that_leaks_takes_no_look_alike_with_it(photographs, tmp_path):
    """An original that is left out because an evaluation set has it does not count as the first one."""
    folder, originals, copies = photographs
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    copy, original = next(iter(copies.items()))
    Image.open(folder / original).save(evaluation / "x.png")
    leakage = {"against": [str(evaluation)], "max_distance": 0}  # the original itself, not its copy
    shards = ingest(config_of(folder, near_duplicates={}, leakage=leakage), 0, tmp_path / "a")
    assert set(shards.keys("train")) == originals - {safe_key(original)} | {copy}


def test_distances_have_a_limit(tmp_path):
    with pytest.raises(ValidationError, match="less than or equal to 10"):
        config_of(tmp_path, near_duplicates={"max_distance": 11})
