"""Labelers of kind `transformers`: any checkpoint of the Hugging Face hub, or a folder in its format (extra `fourfold[hub]`).

Each adapter uses the image processor, the model class and the post-processing that the library has for the checkpoint.
"""

from fourfold.labelers.hub.boxes import TransformersBoxes
from fourfold.labelers.hub.captions import TransformersCaptions
from fourfold.labelers.hub.depth import TransformersDepth
from fourfold.labelers.hub.features import FEATURE_LABELERS
from fourfold.labelers.hub.segmentation import TransformersSegmentation
from fourfold.labelers.registry import register as register_labeler

__all__ = [
    "FEATURE_LABELERS",
    "TransformersBoxes",
    "TransformersCaptions",
    "TransformersDepth",
    "TransformersSegmentation",
    "register",
]


def register() -> None:
    """Register the labelers of this kind."""
    for labeler in (TransformersDepth, TransformersSegmentation, TransformersBoxes, TransformersCaptions, *FEATURE_LABELERS):
        register_labeler(labeler)
