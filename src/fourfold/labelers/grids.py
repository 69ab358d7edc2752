"""Feature maps: on another grid of patches, and as one vector."""

import numpy as np
import torch.nn.functional as F
from torch import Tensor


def regridded(features_BChw: Tensor, grid: tuple[int, int] | None) -> Tensor:
    """Return a feature map with other rows and columns: means over patches for fewer, interpolated values for more.

    Args:
        features_BChw: float32.
        grid: rows and columns; None leaves the map as it is.
    """
    h, w = features_BChw.shape[-2:]
    if grid is None or (h, w) == tuple(grid):
        return features_BChw
    if grid[0] <= h and grid[1] <= w:
        return F.adaptive_avg_pool2d(features_BChw, grid)
    return F.interpolate(features_BChw, grid, mode="bilinear", align_corners=False)


def mean_direction(features_BhwC: np.ndarray) -> np.ndarray:
    """Return unit vectors (B, C) float32: the mean direction of the patches."""
    mean_BC = np.asarray(features_BhwC, np.float32).mean((1, 2))
    return mean_BC / np.linalg.norm(mean_BC, axis=-1, keepdims=True).clip(1e-12)
