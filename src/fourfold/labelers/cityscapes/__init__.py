"""Labelers of kind `cityscapes`: segmentation, boxes and depth from the files that come with Cityscapes."""

from fourfold.labelers.cityscapes.labelers import CITYSCAPES_LABELERS
from fourfold.labelers.registry import register as register_labeler

__all__ = ["CITYSCAPES_LABELERS", "register"]


def register() -> None:
    """Register the labelers of this kind."""
    for labeler in CITYSCAPES_LABELERS:
        register_labeler(labeler)
