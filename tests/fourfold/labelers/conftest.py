"""A few rendered scenes, and teachers so small that they train in seconds."""

from pathlib import Path

import pytest

from fourfold.data.shards import ShardSet, finish_split, write_columns
from fourfold.labelers import LabelingConfig
from fourfold.plugins import load_plugins
from fourfold.scenes.world import CLASS_TABLE, ScenesConfig, caption, render, scene
from fourfold.scenes.world.writing import truth_columns

load_plugins(["fourfold.scenes"])
SCENE_LABELERS = {
    "depth": "scene_depth",
    "normal": "normals_from_depth",
    "semseg": "scene_segmentation",
    "clip": "mini_clip",
    "det": "scene_boxes",
}
NUM_SAMPLES = {"annotated": 24, "train": 12, "val": 10}
SHARD = 6


def write_scenes(root: Path) -> None:
    config = ScenesConfig(image_size=32)
    for split, count in NUM_SAMPLES.items():
        for start in range(0, count, SHARD):
            scenes = [scene(0, split, index, config) for index in range(start, min(start + SHARD, count))]
            batch, name = render(scenes, config), f"shard-{start // SHARD:05d}.tar"
            keys = [one.key for one in scenes]
            images = {"rgb": zip(keys, batch.rgb, strict=True), "caption": zip(keys, map(caption, scenes), strict=True)}
            write_columns(root / "shards", split, name, images)
            if split != "train":
                write_columns(root / "truth", split, name, truth_columns(scenes, batch))
        finish_split(root / "shards", split, ["rgb", "caption"])
        if split != "train":
            finish_split(root / "truth", split, ["depth", "normal", "semseg", "det"], class_tables={"semseg": CLASS_TABLE})


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[ShardSet, ShardSet]:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root)
    return ShardSet(root / "shards"), ShardSet(root / "truth")


@pytest.fixture(scope="session")
def tiny() -> LabelingConfig:
    fit = {"steps": 3, "batch_size": 4}
    scene_network = {"widths": (4, 8, 8), "blocks": (0, 0, 1), "fit": fit}
    clip = {"channels": 8, "widths": (8, 8), "blocks": (0, 1), "text_width": 16, "text_blocks": 1, "fit": fit}
    return LabelingConfig.model_validate(
        {"labelers": SCENE_LABELERS, "teachers": {"scene_network": scene_network, "mini_clip": clip}, "batch_size": 4}
    )
