"""Labelers of kind `precomputed`: labels that come with the data, as files named like the images.

They take the same path as labels that are made here: checks, integration, manifests, tokens.
"""

from fourfold.labelers.precomputed.boxes import PrecomputedBoxes
from fourfold.labelers.precomputed.maps import MAP_LABELERS
from fourfold.labelers.registry import register as register_labeler

__all__ = ["MAP_LABELERS", "PrecomputedBoxes", "register"]


def register() -> None:
    """Register the labelers of this kind."""
    for labeler in (PrecomputedBoxes, *MAP_LABELERS):
        register_labeler(labeler)
