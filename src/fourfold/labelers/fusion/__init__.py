"""Labelers of kind `fusion`: several teachers label the same modality, and their labels are combined.

depth: {kind: fusion, of: [{kind: transformers, model: A}, {kind: onnx, path: B}]}
"""

from fourfold.labelers.fusion.labelers import FusedBoxes, FusedDepth, FusedSegmentation
from fourfold.labelers.registry import register as register_labeler

__all__ = ["FusedBoxes", "FusedDepth", "FusedSegmentation", "register"]


def register() -> None:
    """Register the labelers of this kind."""
    for labeler in (FusedBoxes, FusedDepth, FusedSegmentation):
        register_labeler(labeler)
