"""Depth in meters from the outputs of depth networks.

Networks of metric depth give meters. Many others give inverse depth (near is large) of unknown scale and shift.
"""

import numpy as np
from pydantic import Field, model_validator

from fourfold.configuration import Config

SMALLEST = 1e-3  # meters; post-processing can return values a little below zero
LARGEST = 1000.0  # meters, the default of `pseudo_labeling.integration.max_depth`


class DepthRange(Config):
    """Settings of networks that give inverse depth: the depths to which it is scaled in each image."""

    near: float = Field(1.0, gt=0)  # meters, of the nearest pixel of an image, if the network gives inverse depth
    far: float = Field(20.0, gt=0)  # meters, of the farthest pixel

    @model_validator(mode="after")
    def _check_order(self) -> "DepthRange":
        if self.near >= self.far:
            raise ValueError(f"near is {self.near}, far is {self.far}. Choose near < far.")
        return self


def meters_of_metric(depth_HW: np.ndarray) -> np.ndarray:
    """Return depth in meters, within what a label may have, float32 (H, W)."""
    return np.nan_to_num(depth_HW.astype(np.float32), nan=LARGEST, posinf=LARGEST).clip(SMALLEST, LARGEST)


def meters_of_inverse(inverse_HW: np.ndarray, near: float, far: float) -> np.ndarray:
    """Return depth in meters from inverse depth of unknown scale and shift, float32 (H, W).

    Such labels order pixels by depth but are no measurement. The largest value becomes `near` and the smallest `far`, linear
    in 1/meters. A constant image lies in the middle.
    """
    low, high = float(inverse_HW.min()), float(inverse_HW.max())
    share_HW = (inverse_HW - low) / (high - low) if high > low else np.full_like(inverse_HW, 0.5)
    return (1 / (share_HW * (1 / near - 1 / far) + 1 / far)).astype(np.float32)
