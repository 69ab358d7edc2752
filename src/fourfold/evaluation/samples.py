"""What evaluation looks at: the samples of a split with the teachers' labels and, where it exists, the exact truth."""

# N samples, H height, W width, h, w patches, C channels

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from fourfold.data.shards import ShardSet, collate
from fourfold.scenes.world.vocabulary import GROUND_ID, SKY_ID

LABELED = ("depth", "normal", "semseg", "clip", "det")
COMPUTED = ("canny_edge", "color_palette", "metadata")  # by arithmetic: the labels are right, and no teacher is
# What only some environments have, and what it is predicted from.
IF_LABELED = {"clip_global": ("rgb", "caption"), **dict.fromkeys(COMPUTED, ("rgb",))}
WITH_TRUTH = ("depth", "normal", "semseg", "det", "attributes")


@dataclass(frozen=True)
class Samples:
    """N samples, aligned.

    `labels` is what the teachers said, `truth` what is compared with: exact where the source knows it (`exact` is True),
    otherwise the teachers' labels again. Values are as `fourfold.data.codecs` decodes them.
    """

    keys: list[str]
    rgb: np.ndarray  # uint8 (N, H, W, 3)
    captions: list[str]
    labels: dict[str, Any]
    truth: dict[str, Any]
    exact: bool

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def valid(self) -> np.ndarray:
        """Bool (N, H, W): pixels that have a depth and a normal, which the sky has not."""
        return self.truth["semseg"] != SKY_ID

    @property
    def objects(self) -> np.ndarray:
        """Bool (N, H, W): pixels on objects, neither sky nor ground."""
        return self.valid & (self.truth["semseg"] != GROUND_ID)


def load_samples(shards: ShardSet, labels: ShardSet, truth: ShardSet | None, split: str, most: int) -> Samples:
    """Return the first `most` samples of a split.

    Raises ValueError when the three sets are not aligned. Without truth for this split the teachers' labels take its place.
    """
    seen = _columns(shards, split, ("rgb", "caption"), most)
    there = labels.modalities(split)
    labeled = _columns(labels, split, (*LABELED, *(name for name in IF_LABELED if name in there)), most)
    exact = truth is not None and split in truth.splits()
    known = _columns(truth, split, WITH_TRUTH, most) if truth is not None and exact else labeled
    for name, columns in (("labels", labeled), ("truth", known)):
        if columns["__key__"] != seen["__key__"]:
            raise ValueError(f"The {name} of split {split!r} have other keys than its images. Run the stages before again.")
    return Samples(seen["__key__"], seen["rgb"], seen["caption"], labeled, known, exact)


def main_objects(attributes: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, list[str]]:
    """Return, for each attribute in `names`, its value for the main object (most visible pixels) of every scene."""
    main = [scene["objects"][scene["main_object"]] for scene in attributes]
    return {name: [thing[name] for thing in main] for name in names}


def _columns(shards: ShardSet, split: str, modalities: Sequence[str], most: int) -> dict[str, Any]:
    return collate(list(islice(shards.iterate(split, modalities), most)))
