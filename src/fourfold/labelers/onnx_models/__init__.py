"""Labelers of kind `onnx`: exported networks, run by onnxruntime (extra `fourfold[onnx]`).

This is how networks come in whose code is not installed here: MiDaS, Monodepth2, YOLO, ... `conf/` describes the input and the
output, since an ONNX file contains neither preparation nor post-processing.
"""

from fourfold.labelers.onnx_models.labelers import OnnxBoxes, OnnxClip, OnnxClipVector, OnnxDepth, OnnxSegmentation
from fourfold.labelers.registry import register as register_labeler

__all__ = ["OnnxBoxes", "OnnxClip", "OnnxClipVector", "OnnxDepth", "OnnxSegmentation", "register"]


def register() -> None:
    """Register the labelers of this kind."""
    for labeler in (OnnxBoxes, OnnxClip, OnnxClipVector, OnnxDepth, OnnxSegmentation):
        register_labeler(labeler)
