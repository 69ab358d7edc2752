"""The pinhole camera of the scenes, also the assumed camera of real photographs.

Two frames, both in meters. *Camera*: x right, y down, z into the scene; depth is z. *World*: x right, y up, z forward
along the ground, origin on the ground right below the camera.
"""

import math
from typing import NamedTuple

import numpy as np
from pydantic import Field

from fourfold.configuration import Config


class Intrinsics(NamedTuple):
    """Pinhole intrinsics in pixels; the center of pixel (row, column) lies at (column + 0.5, row + 0.5)."""

    fx: float
    fy: float
    cx: float
    cy: float


class View(NamedTuple):
    """A camera as four numbers. `slope` is the tangent of half the field of view."""

    height: float
    cos: float
    sin: float
    slope: float

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Return where a world point is seen, right and down, in multiples of half the shorter side (0 is the center)."""
        y -= self.height
        scale = 1 / (max(self.cos * z - self.sin * y, 1e-6) * self.slope)
        return x * scale, (-self.cos * y - self.sin * z) * scale


class Camera(Config):
    """A pinhole camera that looks forward and down at a level ground."""

    fov: float = Field(default=50.0, gt=5, lt=150)  # degrees, over the shorter side of the image
    height: float = Field(default=2.0, gt=0)  # meters above the ground
    pitch: float = Field(default=18.0, ge=0, lt=80)  # degrees below the horizon

    def intrinsics(self, height: int, width: int) -> Intrinsics:
        """Return fx, fy, cx, cy in pixels for an image of `height` × `width` pixels."""
        focal = 0.5 * min(height, width) / math.tan(math.radians(self.fov) / 2)
        return Intrinsics(focal, focal, width / 2, height / 2)

    def rays(self, height: int, width: int, offset: tuple[float, float] = (0.5, 0.5)) -> np.ndarray:
        """Return camera-frame rays (3, height · width) float64 with z = 1, so that depth × ray is a point in space.

        `offset` is the place (row, column) inside each pixel; (0.5, 0.5) is its center.
        """
        fx, fy, cx, cy = self.intrinsics(height, width)
        x, y = np.meshgrid((np.arange(width) + offset[1] - cx) / fx, (np.arange(height) + offset[0] - cy) / fy)
        return np.stack([x.ravel(), y.ravel(), np.ones(height * width)])

    def to_world(self, vectors_3N: np.ndarray) -> np.ndarray:
        """Turn camera-frame directions (3, N) into the world frame (no translation; the camera is at (0, height, 0))."""
        x, y, z = vectors_3N
        cos, sin = math.cos(math.radians(self.pitch)), math.sin(math.radians(self.pitch))
        return np.stack([x, -cos * y - sin * z, cos * z - sin * y])

    def to_camera(self, vectors_3N: np.ndarray) -> np.ndarray:
        """Turn world-frame directions (3, N) into the camera frame; the change of frame is its own inverse."""
        return self.to_world(vectors_3N)

    def view(self) -> "View":
        """Return what projecting single points needs, computed once."""
        pitch = math.radians(self.pitch)
        return View(self.height, math.cos(pitch), math.sin(pitch), math.tan(math.radians(self.fov) / 2))
