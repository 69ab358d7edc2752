"""Edges by Canny's detector (IEEE TPAMI 1986), a modality of 4M-21 (arXiv 2406.09406, section 3); no network is needed."""

from typing import Any

import numpy as np
from pydantic import Field, model_validator
from skimage.feature import canny

from fourfold.configuration import Config
from fourfold.labelers.protocol import Batch, Labeler

GRAY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


class CannyConfig(Config):
    """Settings of the detector; thresholds apply to the gradient magnitude of gray values in 0-1."""

    sigma: float = Field(1.0, ge=0)  # pixels, of the Gaussian filter before the gradient
    low: float = Field(0.1, ge=0, le=1)  # an edge is continued down to this gradient
    high: float = Field(0.2, ge=0, le=1)  # an edge starts at this gradient

    @model_validator(mode="after")
    def _check_order(self) -> "CannyConfig":
        if self.low > self.high:
            raise ValueError(f"low is {self.low}, above high ({self.high}). Choose low <= high.")
        return self


class CannyEdges(Labeler):
    """Labels `canny_edge`."""

    name, title, modality = "canny_edges", "Canny edges", "canny_edge"
    kind = "geometry"
    config_class = CannyConfig
    config: CannyConfig

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return (H, W) uint8 arrays: 255 on an edge, 0 elsewhere."""
        config = self.config
        grays = (gray(rgb_HW3) / 255 for rgb_HW3 in batch["rgb"])
        return [canny(gray_HW, config.sigma, config.low, config.high).astype(np.uint8) * 255 for gray_HW in grays]


def gray(rgb_HW3: np.ndarray) -> np.ndarray:
    """Return the luma of an image, float64 (H, W), 0-255."""
    return rgb_HW3 @ GRAY
