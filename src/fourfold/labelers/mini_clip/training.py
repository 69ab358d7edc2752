"""Training the mini-CLIP on pairs of pictures and captions, as the source gives them."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fourfold.data.shards import Sample, ShardSet
from fourfold.labelers.fitting import fit, seeded_weights
from fourfold.labelers.mini_clip.network import ClipTeacher
from fourfold.labelers.mini_clip.words import Words
from fourfold.metric_log import MetricLog

if TYPE_CHECKING:
    from fourfold.labelers.config import LabelingConfig


def train_mini_clip(
    shards: ShardSet, truth: ShardSet, config: "LabelingConfig", seed: int, log: MetricLog
) -> tuple[ClipTeacher, dict[str, Any]]:
    """Train on at most `max_pairs` pairs, needing no truth; returns the teacher and the words it knows."""
    pairs = list(islice(_pairs(shards, config.caption_splits), config.clip.max_pairs))
    words = Words.count((pair["caption"] for pair in pairs), config.clip.vocabulary_size)
    numbers_NL = words.numbers([pair["caption"] for pair in pairs], config.clip.max_words)
    rgb_NHWC = torch.from_numpy(np.stack([pair["rgb"] for pair in pairs]))
    with seeded_weights(seed, "clip"):
        teacher = ClipTeacher(words, config.clip)

    def losses(indices: np.ndarray, step: int) -> dict[str, Tensor]:
        chosen = torch.from_numpy(indices)
        return {"contrastive": teacher.loss(rgb_NHWC[chosen], numbers_NL[chosen])}

    fit(teacher, losses, len(pairs), config.clip.fit, seed, "clip", log)
    return teacher, {"words": list(words.words)}


def build_mini_clip(config: "LabelingConfig", facts: dict[str, Any]) -> ClipTeacher:
    """Return an untrained teacher that knows the words in `facts`."""
    return ClipTeacher(Words(facts["words"]), config.clip)


def _pairs(shards: ShardSet, splits: tuple[str, ...]) -> Iterator[Sample]:
    for split in splits:
        yield from shards.iterate(split, ["rgb", "caption"])
