"""The guide docs/guides/add-a-source.md is executed: its plug-in is loaded, configured and ingested."""

import pytest

from fourfold.data.ingestion.ingest import IngestionConfig, ingest, ingestion_report
from fourfold.plugins import load_plugins
from tests.fourfold.data.crawls import image_bytes
from tests.fourfold.guides import plugin_of_guide, yaml_block

GUIDE = "add-a-source.md"


@pytest.fixture
def flickr(tmp_path):
    """Images and captions as Flickr30k publishes them: 60 images, two captions each, and captions of a missing image."""
    (tmp_path / "flickr30k-images").mkdir()
    for number in range(60):
        (tmp_path / "flickr30k-images" / f"{number}.jpg").write_bytes(image_bytes(number))
    lines = [f"{number}.jpg#{which}\tcaption {which} of {number}\n" for number in range(61) for which in range(2)]
    (tmp_path / "results_20130124.token").write_text("".join(lines))
    return tmp_path


def test_the_source_of_the_guide_is_ingested(flickr, tmp_path, monkeypatch):
    settings = yaml_block(GUIDE)
    with plugin_of_guide(GUIDE, tmp_path, "flickr"):
        load_plugins(settings["plugins"])
        monkeypatch.chdir(flickr)  # the paths of the guide are relative
        no_scenes = {"kind": "scenes", "image_size": 16, "num_samples": {"annotated": 3}}
        assert settings["ingestion"]["supplement"] == {"kind": "scenes"}
        config = IngestionConfig(
            source=settings["ingestion"]["source"],
            supplement=no_scenes,
            image_size=16,
            cleaning={"min_side": 16},
            val_share=0.2,
            test_share=0.2,
        )
        shards = ingest(config, 0, tmp_path / "out")
        with pytest.raises(ValueError, match=r"'captoins'. Did you mean 'captions'"):
            IngestionConfig(source={"kind": "flickr", "path": "x", "captoins": "y"})  # spelling: ignore
    assert shards.splits() == ["annotated", "test", "train", "val"]
    captions = {s["__key__"]: s["caption"] for split in ("train", "val", "test") for s in shards.iterate(split, ["caption"])}
    assert captions == {str(number): f"caption 0 of {number}" for number in range(60)}
    assert ingestion_report(tmp_path / "out")["dropped"] == {"no image of this name": 1}
