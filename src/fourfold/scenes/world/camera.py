"""The camera of the scenes: a pinhole camera above a level ground, and the change between its frame and the world's.

World frame: x right, y up, z forward along the ground, in meters; the origin is on the ground right below the camera.
"""

import math
from typing import NamedTuple

import numpy as np
from pydantic import Field

from fourfold.modalities.camera import Camera


class View(NamedTuple):
    """A camera as four numbers, for projecting single points; `slope` is the tangent of half the field of view."""

    height: float
    cos: float
    sin: float
    slope: float

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Return the image position of a world point, right and down, in multiples of half the shorter side (0: center)."""
        y -= self.height
        scale = 1 / (max(self.cos * z - self.sin * y, 1e-6) * self.slope)
        return x * scale, (-self.cos * y - self.sin * z) * scale


class SceneCamera(Camera):
    """A pinhole camera that looks forward and down at a level ground."""

    height: float = Field(default=2.0, gt=0)  # meters above the ground
    pitch: float = Field(default=18.0, ge=0, lt=80)  # degrees below the horizon

    def to_world(self, vectors_3N: np.ndarray) -> np.ndarray:
        """Rotate camera-frame directions (3, N) into the world frame (no translation; the camera is at (0, height, 0))."""
        x, y, z = vectors_3N
        cos, sin = math.cos(math.radians(self.pitch)), math.sin(math.radians(self.pitch))
        return np.stack([x, -cos * y - sin * z, cos * z - sin * y])

    def to_camera(self, vectors_3N: np.ndarray) -> np.ndarray:
        """Rotate world-frame directions (3, N) into the camera frame; this rotation is its own inverse."""
        return self.to_world(vectors_3N)

    def view(self) -> View:
        """Return the constants that projecting single points needs."""
        pitch = math.radians(self.pitch)
        return View(self.height, math.cos(pitch), math.sin(pitch), math.tan(math.radians(self.fov) / 2))
