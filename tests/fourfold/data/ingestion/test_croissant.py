"""The Croissant of a data set, judged by mlcroissant: it is valid, and loads what the shards hold."""

import hashlib
import json
import warnings

import pytest

from fourfold.data.ingestion.card import all_sources
from fourfold.data.ingestion.croissant import CardConfig, croissant
from fourfold.data.ingestion.ingest import IngestionConfig, ingest, ingestion_report
from tests.fourfold.data.crawls import write_folder

CARD = CardConfig(
    name="my-photos",
    url="https://example.org/photos",
    creators=("Ada",),
    cite_as="@misc{photos}",
    date_published="2026-01-29",
)


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """A folder of 40 photographs and two files that are left out, ingested and described."""
    root = tmp_path_factory.mktemp("croissant")
    (write_folder(root / "in", range(40)) / "broken.png").write_bytes(b"no image")
    (root / "in" / "notes.pdf").write_bytes(b"%PDF")
    config = IngestionConfig(
        source={"kind": "folder", "path": str(root / "in"), "license": "https://creativecommons.org/licenses/by/4.0/"},
        image_size=16,
        cleaning={"min_side": 16, "captions": "optional"},
        val_share=0.2,
        test_share=0.2,
        samples_per_shard=10,
        card=CARD,
    )
    shards, report = ingest(config, 0, root / "out"), ingestion_report(root / "out")
    text = croissant(config.card, all_sources(config), report, shards)
    assert text == croissant(config.card, all_sources(config), report, shards)
    (root / "out" / "croissant.json").write_text(text)
    return root / "out" / "croissant.json", shards, config


@pytest.fixture(scope="module")
def loaded(described, tmp_path_factory):
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("CROISSANT_CACHE", str(tmp_path_factory.mktemp("cache")))  # read at the import
        import mlcroissant

        return mlcroissant.Dataset(jsonld=str(described[0]))


def records(loaded, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(loaded.records(name))


def test_it_is_valid_without_a_warning(loaded):
    issues = loaded.metadata.ctx.issues
    assert not issues.errors and not issues.warnings, issues.report()


def test_images_captions_and_keys_are_those_of_the_shards(described, loaded):
    _, shards, _ = described
    expected = {one["__key__"]: one for one in shards.iterate("val", ["rgb", "caption"])}
    images = {_text(row["val-rgb/key"]): row["val-rgb/rgb"] for row in records(loaded, "val-rgb")}
    captions = {_text(row["val-caption/key"]): _text(row["val-caption/caption"]) for row in records(loaded, "val-caption")}
    assert images.keys() == captions.keys() == expected.keys()
    for key, one in expected.items():
        assert captions[key] == one["caption"] and images[key].convert("RGB").tobytes() == one["rgb"].tobytes()


def test_sources_splits_and_losses_are_tables(loaded, described):
    _, shards, _ = described
    splits = {_text(row["splits/split"]): row["splits/samples"] for row in records(loaded, "splits")}
    assert splits == {split: shards.num_samples(split) for split in shards.splits()}
    (source,) = records(loaded, "sources")
    assert (source["sources/kept"], source["sources/seen"]) == (40, 41) and "by/4.0" in _text(source["sources/license"])
    reasons = {_text(row["left_out/reason"]): row["left_out/count"] for row in records(loaded, "left_out")}
    assert reasons == {"image unreadable": 1, "file of a kind that is not read": 1}


def test_every_file_has_its_digest(described):
    path, _, _ = described
    files = [one for one in json.loads(path.read_text())["distribution"] if one["@type"] == "cr:FileObject"]
    assert len(files) > 10
    for one in files:
        assert hashlib.sha256((path.parent / one["contentUrl"]).read_bytes()).hexdigest() == one["sha256"]


def test_the_card_changes_no_data(described):
    _, shards, config = described
    assert ingest(config.model_copy(update={"card": CardConfig()}), 0, shards.root.parent).digest() == shards.digest()
    assert "card" not in config.model_dump()


def _text(value):
    return value.decode() if isinstance(value, bytes) else value
