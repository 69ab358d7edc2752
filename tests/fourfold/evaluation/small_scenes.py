"""A small data set of scenes on disk, a text encoder without weights, and a model with perfect answers."""

from pathlib import Path

import numpy as np

from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.evaluation.samples import EvaluationData
from fourfold.scenes.world.captions import caption
from fourfold.scenes.world.config import ScenesConfig
from fourfold.scenes.world.render import render
from fourfold.scenes.world.scene import scene
from fourfold.scenes.world.vocabulary import CLASS_TABLE, COLORS, SHAPES
from fourfold.scenes.world.writing import TRUTH, truth_columns

WORDS = (*COLORS, *SHAPES)
CONFIG = ScenesConfig(image_size=32, max_objects=1)


class Encoder:
    """Encodes the colors and shapes that a text names, or that `write_split` wrote into the first pixels of an image."""

    def encode_text(self, texts: list[str]) -> np.ndarray:
        named = [[word in text.split() for word in WORDS] for text in texts]
        return np.array(named, float).reshape(len(texts), len(WORDS)) + 0.01

    def encode_image(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pooled = rgb[:, 0, : len(WORDS), 0] / 255 + 0.01
        return np.broadcast_to(pooled[:, None, None], (len(rgb), 4, 4, len(WORDS))), pooled

    def pool(self, features: np.ndarray) -> np.ndarray:
        return features.mean((1, 2))


def write_split(root, split: str, count: int, with_global: bool = False) -> None:
    scenes = [scene(0, split, index, CONFIG) for index in range(count)]
    rendered, keys = render(scenes, CONFIG), [one.key for one in scenes]
    truth = truth_columns(scenes, rendered)
    captions = [caption(one) for one in scenes]
    images = rendered.rgb.copy()
    images[:, 0, : len(WORDS)] = (Encoder().encode_text(captions)[..., None] > 0.5) * 255
    features, pooled = (values.astype(np.float16) for values in Encoder().encode_image(images))
    globally = {"clip_global": zip(keys, pooled, strict=True)} if with_global else {}
    for folder, columns in (
        ("shards", {"rgb": zip(keys, images, strict=True), "caption": zip(keys, captions, strict=True)}),
        ("truth", truth),
        ("labels", {**{m: truth[m] for m in TRUTH if m != "attributes"}, "clip": zip(keys, features, strict=True)} | globally),
    ):
        write_columns(root / folder, split, shard_name(0), columns)
        tables = {"semseg": CLASS_TABLE} if "semseg" in columns else {}
        finish_split(root / folder, split, list(columns), class_tables=tables)


def evaluation_data(root: Path, **num_samples: int) -> EvaluationData:
    """Write scenes and return their shard sets, e.g. `evaluation_data(folder, val=12, test=16)`."""
    for split, count in num_samples.items():
        write_split(root, split, count)
    return EvaluationData(*(ShardSet(root / name) for name in ("shards", "labels", "truth")))


class Oracle:
    """Answers with what is stored for the split."""

    def __init__(self, data: EvaluationData) -> None:
        truth = {m: data.labels.load_column("test", m) for m in ("depth", "normal", "semseg", "det", "clip")}
        self.answers = truth | {m: data.shards.load_column("test", m) for m in ("rgb", "caption")}
        self.asked: list = []

    def predict(self, conditions, targets, *, preset=None, seed=0):
        self.asked.append((set(conditions), tuple(targets), preset.chain))
        return {target: self.answers[target] for target in targets}
