"""Edges by Canny's detector (1986), as 4M-21 has them: no network, no teacher."""

import numpy as np
from pydantic import Field, model_validator
from skimage.feature import canny

from fourfold.configuration import Config
from fourfold.labelers.protocol import Batch

GRAY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


class CannyConfig(Config):
    """Settings of the detector; thresholds are of the gradient's size, gray being 0-1."""

    sigma: float = Field(1.0, ge=0)  # pixels, of the Gaussian that comes first
    low: float = Field(0.1, ge=0, le=1)  # an edge goes on down to this
    high: float = Field(0.2, ge=0, le=1)  # and starts at this

    @model_validator(mode="after")
    def _ordered(self) -> "CannyConfig":
        if self.low > self.high:
            raise ValueError(f"canny.low is {self.low}, above canny.high {self.high}.")
        return self


class CannyEdges:
    """The labeler of `canny_edge`."""

    name, modality, version = "canny_edges", "canny_edge", "1"
    needs: tuple[str, ...] = ("rgb",)

    def __init__(self, config: CannyConfig) -> None:
        self.config = config

    def label(self, batch: Batch) -> list[np.ndarray]:
        """Return (H, W) uint8 arrays: 255 on an edge, 0 elsewhere."""
        config = self.config
        grays = (gray(rgb_HW3) / 255 for rgb_HW3 in batch["rgb"])
        edges = (canny(values, config.sigma, config.low, config.high) for values in grays)
        return [found.astype(np.uint8) * 255 for found in edges]


def gray(rgb_HW3: np.ndarray) -> np.ndarray:
    """Return the luma of a picture, float64 (H, W), 0-255."""
    return rgb_HW3 @ GRAY
