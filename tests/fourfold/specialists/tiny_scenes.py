"""A few rendered scenes with their exact labels, in memory and as shards."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.scenes.world.config import ScenesConfig
from fourfold.scenes.world.render import render
from fourfold.scenes.world.scene import scene
from fourfold.scenes.world.vocabulary import CLASS_TABLE
from fourfold.scenes.world.writing import truth_columns
from fourfold.specialists.protocol import LabeledImages

SCENES = ScenesConfig(image_size=32)
TARGETS = ("depth", "semseg", "det")


@cache
def columns(split: str, count: int) -> dict[str, list[tuple[str, Any]]]:
    """Return images and labels by name, each as (key, value)."""
    scenes = [scene(0, split, index, SCENES) for index in range(count)]
    rendered = render(scenes, SCENES)
    images = [(one.key, image) for one, image in zip(scenes, rendered.rgb, strict=True)]
    return {"rgb": images, **{name: list(values) for name, values in truth_columns(scenes, rendered).items()}}


def labeled(target: str, count: int) -> LabeledImages:
    """Return scenes with one exact label."""
    found = columns("train", count)
    values = [value for _, value in found[target]]
    images = np.stack([image for _, image in found["rgb"]])
    return LabeledImages(images, values if target == "det" else np.stack(values), CLASS_TABLE)


def shard_sets(root: Path, count: int) -> tuple[ShardSet, ShardSet]:
    """Write the split `train` as images and labels."""
    found = columns("train", count)
    for name, chosen in (("shards", ("rgb",)), ("labels", TARGETS)):
        write_columns(root / name, "train", shard_name(0), {key: found[key] for key in chosen})
        tables = {"semseg": CLASS_TABLE} if name == "labels" else {}
        finish_split(root / name, "train", list(chosen), class_tables=tables)
    return ShardSet(root / "shards"), ShardSet(root / "labels")
