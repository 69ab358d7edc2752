"""Kinds of scans as modalities: gray images that a model reads and predicts beside the image of a sample.

The module imports little, because registered models load it (`fourfold.medical.serving`).
"""

# B batch, H rows, W columns

import numpy as np
import torch

from fourfold.modalities import LABELS, Label, TokenModality, register_modality
from fourfold.tokenizers.formats import DENSE_FORMATS, EdgeFormat

KIND = "gray"  # of the labels
CODES, TOKENS = 8192, 196  # of the released size, as depth has
SCANS = {  # available without code
    "t1": "T1-weighted MRI",
    "t1ce": "T1-weighted MRI with contrast agent",
    "t2": "T2-weighted MRI",
    "flair": "FLAIR MRI",
    "pd": "proton density MRI",
    "dwi": "diffusion-weighted MRI",
    "adc": "apparent diffusion coefficient",
    "ct": "computed tomography",
    "pet": "positron emission tomography",
    "xray": "radiograph",
}


class GrayFormat(EdgeFormat):
    """uint8 (H, W) as [-1, 1] on one channel, with smooth L1, as depth has; reconstructions keep all levels."""

    def values(self, output_BCHW: torch.Tensor) -> np.ndarray:  # noqa: D102
        return (output_BCHW[:, 0] * 127.5 + 127.5).round().clamp(0, 255).byte().numpy()


def register_scan_modality(name: str, about: str) -> None:
    """Add the label of a kind of scan and its tokens, `tok_NAME`; once more changes nothing.

    Raises:
        ValueError: another modality has the name.
    """
    DENSE_FORMATS[KIND] = GrayFormat
    label = Label(name, KIND, "png", "uint8", 0, about, "smooth_l1", "0-255 as [-1, 1]: mean = std = 0.5")
    if LABELS.get(name) != label:
        register_modality(label, TokenModality(f"tok_{name}", name, "grid", CODES, TOKENS))


def register() -> None:
    """Add the kinds of scans that are known without code."""
    for name, about in SCANS.items():
        register_scan_modality(name, about)
