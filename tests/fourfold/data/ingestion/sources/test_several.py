"""Several sources in one run: each keeps its captions, license and counts, and pretraining can weigh them."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from fourfold.data.cursor import Cursor
from fourfold.data.ingestion.card import data_card
from fourfold.data.ingestion.ingest import IngestionConfig, expected_samples, ingest, ingestion_report
from fourfold.data.ingestion.sources import AnySourceConfig
from fourfold.data.shards import ShardSet, finish_split, shard_name, source_of, write_columns
from fourfold.masking.config import MaskingConfig, MixtureComponent
from fourfold.masking.masker import Masker
from fourfold.masking.spans import SentinelIds
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.plugins import load_plugins
from fourfold.pretraining.config import DatasetConfig
from fourfold.pretraining.loader import BatchOrder
from fourfold.pretraining.mixture import mixture_loader
from tests.fourfold.data.crawls import image_bytes, members_of, write_folder, write_tar
from tests.fourfold.killing import files_of


@pytest.fixture
def config(tmp_path) -> IngestionConfig:
    """A folder, another one with equal names and other images, and a tar whose captions are in the .json."""
    write_folder(tmp_path / "mine", range(30))
    for number in range(30):
        (tmp_path / "theirs").mkdir(exist_ok=True)
        (tmp_path / "theirs" / f"photo{number:05d}.png").write_bytes(image_bytes(1000 + number))
        (tmp_path / "theirs" / f"photo{number:05d}.caption").write_text(f"theirs, number {number}")
    members = [
        member
        for number in range(60)
        for member in ((f"{number:09d}.png", image_bytes(2000 + number)), (f"{number:09d}.json", b'{"alt": "crawled"}'))
    ]
    write_tar(tmp_path / "crawl" / "0.tar", [*members, *members_of([5])])  # the last one is an image of the first source
    sources = {
        "mine": {"kind": "folder", "path": str(tmp_path / "mine"), "license": "CC-BY-4.0"},
        "theirs": {"kind": "folder", "path": str(tmp_path / "theirs")},
        "crawl": {"kind": "webdataset", "path": str(tmp_path / "crawl"), "caption_field": "alt", "license": "see | URLs"},
    }
    return IngestionConfig(
        source={"kind": "several", "sources": sources},
        image_size=16,
        cleaning={"min_side": 16},
        val_share=0.2,
        test_share=0.2,
        samples_per_shard=16,
    )


def test_each_source_has_its_own_shards_captions_and_counts(config, tmp_path):
    shards = ingest(config, 0, tmp_path / "out")
    captions = {"mine": set(), "theirs": set(), "crawl": set()}
    for split in shards.splits():
        for name in shards.shard_names(split):
            captions[source_of(name)] |= {one["caption"] for one in shards.read(split, ["caption"], name)}
    assert captions == {
        "mine": {f"photo number {n}" for n in range(30)},
        "theirs": {f"theirs, number {n}" for n in range(30)},
        "crawl": {"crawled"},
    }
    keys = [key for split in shards.splits() for key in shards.keys(split)]
    assert len(keys) == len(set(keys)) == 120
    # Sources alternate in the order of the shards: the first shards have some of each
    assert [source_of(name) for name in shards.shard_names("train")[:3]] == ["crawl", "mine", "theirs"]
    report = ingestion_report(tmp_path / "out")
    assert {name: found["kept"] for name, found in report["by_source"].items()} == {"mine": 30, "theirs": 30, "crawl": 60}
    assert report["by_source"]["crawl"]["samples_dropped"] == {"duplicate image": 1}
    card = data_card(config, report)
    assert "- **mine**: folder of images" in card and "License: CC-BY-4.0" in card and "License: see \\| URLs" in card
    assert card.count("License: not stated") == 1 and "| crawl | 60 | 61 |" in card


def test_bytes_depend_neither_on_processes_nor_on_an_interruption(config, tmp_path, monkeypatch):
    whole = ingest(config, 0, tmp_path / "out")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    again = ingest(config, 0, tmp_path / "again")
    assert files_of(again.root) == files_of(whole.root)
    assert expected_samples(config) is None  # members of tars are not listed


def test_sources_without_tars_are_counted_before_a_run(config):
    folders = {name: one for name, one in config.source.sources.items() if name != "crawl"}
    source = config.source.model_copy(update={"sources": folders})
    assert sum(expected_samples(config.model_copy(update={"source": source})).values()) == 60


def test_wrong_settings_are_named(tmp_path):
    load_plugins(["fourfold.scenes"])
    parse = TypeAdapter(AnySourceConfig).validate_python
    folder = {"kind": "folder", "path": str(tmp_path)}
    for sources, message in (
        ({"a": folder}, "at least 2"),
        ({"a": folder, "B c": folder}, "pattern"),
        ({"a": folder, "b": {"kind": "scenes"}}, "b is of kind 'scenes', which cannot be one of several sources"),
        ({"a": folder, "b": {"kind": "folder", "pth": "x"}}, "'pth'. Did you mean 'path'"),
    ):
        with pytest.raises(ValueError, match=message):
            parse({"kind": "several", "sources": sources})


def test_pretraining_draws_from_sources_by_weight(tmp_path):
    """Sample n of a source is a grid that consists of its number: 0 to 19 of one source, 100 to 104 of the other."""
    for source, numbers in (("crawl", range(20)), ("mine", range(100, 105))):
        grids = [(f"{source}-{n}", np.full((1, 4), n, np.int16)) for n in numbers]
        crops = [(key, np.array([[0, 0, 2, 2, 0]], np.int32)) for key, _ in grids]
        columns = {"tok_depth": grids, "crop_settings": crops}
        write_columns(tmp_path, "train", shard_name(0, source), columns)
    finish_split(tmp_path, "train", ["tok_depth", "crop_settings"])
    model = ModelConfig(
        modalities=(ModalityConfig(name="tok_depth", kind="grid", vocabulary_size=400, grid=(2, 2)),), dim=16, num_heads=2
    )
    component = MixtureComponent(alpha_in={"tok_depth": 1.0}, alpha_target={"tok_depth": 1.0})
    special = SentinelIds(eos=1, sentinels=tuple(range(2, 12)))
    masker = Masker(MaskingConfig(components=(component,), input_tokens=2, target_tokens=2), model, special)
    datasets = {"a": DatasetConfig(source="crawl", weight=1), "b": DatasetConfig(source="mine", weight=3)}
    loader = mixture_loader(ShardSet(tmp_path), None, datasets, masker, BatchOrder(8, seed=0))
    batches = loader.batches(Cursor())
    seen = np.concatenate([next(batches)[0].input_token_BN[:, 0].numpy() for _ in range(125)])  # one period
    assert (seen >= 100).sum() == 750 and set(seen) == {*range(20), *range(100, 105)}
    with pytest.raises(ValueError, match=r"Unknown source of split 'train': 'mien'\. Did you mean 'mine'"):
        mixture_loader(ShardSet(tmp_path), None, {"a": DatasetConfig(source="mien")}, masker, BatchOrder(8, seed=0))
