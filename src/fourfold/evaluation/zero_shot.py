"""Zero-shot classification of the main object through CLIP features: which text is the picture nearest to?

The features may be the teacher's or those a student predicted; texts are embedded by the teacher (Radford et al. 2021,
prompt ensembles).
"""

# N samples, K choices, h, w patches, C channels

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from fourfold.metrics.dense import accuracy_statistic
from fourfold.metrics.statistics import Statistic
from fourfold.scenes.world.vocabulary import COLORS, SHAPES, SIZES

CHOICES = {"shape": SHAPES, "color": COLORS}


class ImageTextEncoder(Protocol):
    """The CLIP teacher as evaluation needs it."""

    def encode_image(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return patch features (N, h, w, C) and global features (N, C) of uint8 (N, H, W, 3)."""

    def encode_text(self, texts: list[str]) -> np.ndarray:
        """Return (N, C)."""

    def pool(self, features: np.ndarray) -> np.ndarray:
        """Return the global features (N, C) of patch features (N, h, w, C)."""


def prompts(attribute: str, choice: str) -> list[str]:
    """Return texts that say `choice` and leave everything else evenly open."""
    if attribute == "shape":
        return [f"a {size} {color} {choice}" for size in SIZES for color in COLORS]
    return [f"a {size} {choice} {shape}" for size in SIZES for shape in SHAPES]


def text_classifier(encoder: ImageTextEncoder, attribute: str) -> np.ndarray:
    """Return one unit vector (K, C) per choice: the mean of its prompts' unit vectors."""
    rows = [_unit(encoder.encode_text(prompts(attribute, choice))).mean(axis=0) for choice in CHOICES[attribute]]
    return _unit(np.stack(rows))


def zero_shot_statistics(
    encoder: ImageTextEncoder, pooled_NC: np.ndarray, truth: Mapping[str, Sequence[str]]
) -> dict[str, Statistic]:
    """Return `zero_shot_shape` and `zero_shot_color` accuracy of global features.

    `truth` has, for each attribute, the main object's value in every sample.
    """
    result = {}
    for attribute, choices in CHOICES.items():
        similarity_NK = _unit(pooled_NC) @ text_classifier(encoder, attribute).T
        chosen = np.array(choices)[similarity_NK.argmax(axis=1)]
        result[f"zero_shot_{attribute}"] = accuracy_statistic(chosen, np.array(truth[attribute]))
    return result


def majority_statistics(truth: Mapping[str, Sequence[str]], fitted: Mapping[str, Sequence[str]]) -> dict[str, Statistic]:
    """Return the accuracy of always saying the commonest value in `fitted` (val)."""
    result = {}
    for attribute in CHOICES:
        values, counts = np.unique(np.array(fitted[attribute]), return_counts=True)
        guess = np.full(len(truth[attribute]), values[counts.argmax()])
        result[f"zero_shot_{attribute}"] = accuracy_statistic(guess, np.array(truth[attribute]))
    return result


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
