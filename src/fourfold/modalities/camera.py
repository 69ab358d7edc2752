"""The pinhole camera that depth and normals refer to: x right, y down, z into the scene, in meters; depth is z."""

import math
from typing import NamedTuple

import numpy as np
from pydantic import Field

from fourfold.configuration import Config


class Intrinsics(NamedTuple):
    """Pinhole intrinsics in pixels; the center of pixel (row, column) is at (column + 0.5, row + 0.5)."""

    fx: float
    fy: float
    cx: float
    cy: float


class Camera(Config):
    """A pinhole camera without distortion whose principal point is the center of the image."""

    fov: float = Field(default=50.0, gt=5, lt=150)  # degrees, over the shorter side of the image

    def intrinsics(self, height: int, width: int) -> Intrinsics:
        """Return fx, fy, cx, cy in pixels for an image of `height` × `width` pixels."""
        focal = 0.5 * min(height, width) / math.tan(math.radians(self.fov) / 2)
        return Intrinsics(focal, focal, width / 2, height / 2)

    def rays(self, height: int, width: int, offset: tuple[float, float] = (0.5, 0.5)) -> np.ndarray:
        """Return the viewing rays of all pixels, scaled to z = 1, so that depth × ray is a point in space.

        Args:
            height: rows of the image.
            width: columns of the image.
            offset: position (row, column) inside each pixel; (0.5, 0.5) is its center.

        Returns:
            Float64 (3, height · width), row by row.
        """
        fx, fy, cx, cy = self.intrinsics(height, width)
        x, y = np.meshgrid((np.arange(width) + offset[1] - cx) / fx, (np.arange(height) + offset[0] - cy) / fy)
        return np.stack([x.ravel(), y.ravel(), np.ones(height * width)])
