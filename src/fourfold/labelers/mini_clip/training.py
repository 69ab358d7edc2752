"""Training of the mini-CLIP on images and captions; exact truth is not needed."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from fourfold.data.shards import Sample, ShardSet
from fourfold.labelers.fitting import fit, seeded_weights
from fourfold.labelers.mini_clip.network import MiniClip, MiniClipConfig
from fourfold.labelers.mini_clip.words import WordVocabulary
from fourfold.labelers.protocol import Facts, TrainingData
from fourfold.training.run_context import RunContext


def train_mini_clip(data: TrainingData, config: MiniClipConfig, context: RunContext) -> tuple[MiniClip, Facts]:
    """Train on at most `max_pairs` pairs of the caption splits; returns the network and its vocabulary.

    Raises:
        ValueError: no image of these splits has a caption.
    """
    pairs = list(islice(_pairs(data.shards, data.caption_splits), config.max_pairs))
    if not pairs:
        raise ValueError(
            f"mini_clip learns from captions, and no image of {', '.join(data.caption_splits)} has one. Take it out with "
            "`clip: null` under pseudo_labeling.labelers and `text_encoder: null` under evaluation, or give captions."
        )
    vocabulary = WordVocabulary.train((pair["caption"] for pair in pairs), config.vocabulary_size)
    ids_NL = vocabulary.encode([pair["caption"] for pair in pairs], config.max_words)
    rgb_NHWC = torch.from_numpy(np.stack([pair["rgb"] for pair in pairs]))
    with seeded_weights(context.seed, "clip"):
        network = MiniClip(vocabulary, config)

    def losses(indices: np.ndarray, step: int) -> dict[str, Tensor]:
        chosen = torch.from_numpy(indices)
        return {"contrastive": network.loss(rgb_NHWC[chosen], ids_NL[chosen])}

    fit(network, losses, len(pairs), config.fit, "clip", context)
    return network, {"words": list(vocabulary.words)}


def build_mini_clip(config: MiniClipConfig, facts: Facts) -> MiniClip:
    """Return an untrained network with the vocabulary in `facts`."""
    return MiniClip(WordVocabulary(facts["words"]), config)


def _pairs(shards: ShardSet, splits: tuple[str, ...]) -> Iterator[Sample]:
    for split in (name for name in splits if name in shards.splits()):
        yield from (pair for pair in shards.iterate(split, ["rgb", "caption"]) if pair["caption"])
