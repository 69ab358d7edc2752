"""The guide docs/guides/add-a-source.md is executed: its plug-in is loaded, configured and ingested."""

import json

import pytest

from fourfold.data.ingestion.ingest import IngestionConfig, ingest, ingestion_report
from fourfold.data.ingestion.sources import SOURCES
from fourfold.plugins import load_plugins
from tests.fourfold.data.crawls import image_bytes
from tests.fourfold.guides import plugin_of_guide, yaml_block

GUIDE = "add-a-source.md"


@pytest.fixture
def coco(tmp_path):
    """Images and captions as COCO publishes them: 60 images, two captions each, and one image without any."""
    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    for number in range(61):
        (tmp_path / "val2017" / f"{number:012d}.png").write_bytes(image_bytes(number))
    content = {
        "images": [{"id": number, "file_name": f"{number:012d}.png"} for number in range(61)],
        "annotations": [
            {"image_id": number, "caption": f"{which} caption of {number}"}
            for which in ("first", "second")
            for number in range(60)
        ],
    }
    (tmp_path / "annotations" / "captions_val2017.json").write_text(json.dumps(content))
    return tmp_path


def test_the_source_of_the_guide_is_ingested(coco, tmp_path, monkeypatch):
    settings = yaml_block(GUIDE)
    with plugin_of_guide(GUIDE, tmp_path, "coco"):
        load_plugins(settings["plugins"])
        try:
            monkeypatch.chdir(coco)  # the paths of the guide are relative
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
            with pytest.raises(ValueError, match=r"'anotations'. Did you mean 'annotations'"):
                IngestionConfig(source={"kind": "coco", "path": "x", "anotations": "y"})  # spelling: ignore
        finally:
            SOURCES.remove("coco")
    assert shards.splits() == ["annotated", "test", "train", "val"]
    captions = {s["__key__"]: s["caption"] for split in ("train", "val", "test") for s in shards.iterate(split, ["caption"])}
    assert captions == {f"{number:012d}": f"first caption of {number}" for number in range(60)}
    assert ingestion_report(tmp_path / "out")["dropped"] == {"no caption": 1}
