"""The least certain labels as images, beside their photograph and what they are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from fourfold.data import codecs
from fourfold.data.missing import Missing
from fourfold.data.shards import ShardSet
from fourfold.images import Drawing, data_url, draw
from fourfold.labelers.consistency import Measure
from fourfold.modalities import LABELS

MAX_SIDE = 192  # pixels of an image on the page


@dataclass(frozen=True)
class Least:
    """One of the least certain labels; `index` is that of a box in its image."""

    split: str
    shard: str
    key: str
    value: float
    index: int | None


@dataclass(frozen=True)
class Case:
    """One of the least certain labels, drawn: (title, data URL) of each image."""

    split: str
    key: str
    value: float
    text: str
    images: Sequence[tuple[str, str]]


def draw_cases(shards: ShardSet, labels: ShardSet, measure: Measure, least: Sequence[Least]) -> list[Case]:
    """Draw labels in the order in which they are given; only these samples are decoded."""
    return [_case(shards, labels, measure, one) for one in least]


def _case(shards: ShardSet, labels: ShardSet, measure: Measure, one: Least) -> Case:
    read = partial(_value, one)
    rgb_HW3 = read(shards, "rgb")
    shown = {name: read(labels, name) for name in (measure.modality, measure.beside) if name}
    text = ""
    if one.index is not None:
        instance = shown[measure.modality]["instances"][one.index]
        shown[measure.modality] = {"instances": [instance]}
        text = instance["class_name"]
    images = [("image", data_url(_small(rgb_HW3)))]
    for name, value in shown.items():
        image = None if isinstance(value, Missing) else draw(name, value, _drawing(name, value, rgb_HW3, labels, one.split))
        if image is not None:
            images.append((name, data_url(_small(image))))
    return Case(one.split, one.key, one.value, text, images)


def _drawing(name: str, value: Any, rgb_HW3: np.ndarray, labels: ShardSet, split: str) -> Drawing:
    """Return what drawing needs; depth has the scale of this image."""
    table = labels.manifest(split, name).class_table
    if LABELS[name].kind != "depth":
        return Drawing(rgb_HW3, table, size=rgb_HW3.shape[0])
    near, far = float(np.min(value)), float(np.max(value))
    return Drawing(rgb_HW3, table, depth_range=(near, max(far, 1.01 * near)))


def _value(one: Least, shards: ShardSet, modality: str) -> Any:
    members = dict(shards.read_bytes(one.split, modality, one.shard))
    return codecs.decode(modality, members[one.key])


def _small(image_HW3: np.ndarray) -> np.ndarray:
    if max(image_HW3.shape[:2]) <= MAX_SIDE:
        return image_HW3
    image = Image.fromarray(image_HW3)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return np.asarray(image)
