"""References: the inside of each solid as one inequality in float64, for intersections, normals and truth."""

import math

import numpy as np

from fourfold.scenes.world import SceneObject


def implicit(shape: str, x: np.ndarray, y: np.ndarray, z: np.ndarray, radius: float, height: float) -> np.ndarray:
    """Return the signed distance in the object's frame: negative inside, 0 on the surface, in meters near the surface."""
    if shape == "sphere":
        return np.sqrt(x**2 + (y - radius) ** 2 + z**2) - radius
    if shape == "box":
        return np.maximum.reduce([np.abs(x) - radius, np.abs(z) - radius, np.abs(y - height / 2) - height / 2])
    if shape == "cylinder":
        return np.maximum(np.hypot(x, z) - radius, np.abs(y - height / 2) - height / 2)
    slant = math.hypot(radius, height)
    return np.maximum((np.hypot(x, z) * height - (height - y) * radius) / slant, -y)


def implicit_of(solid: SceneObject, point_3N: np.ndarray) -> np.ndarray:
    """Return the signed distance of world points (3, N) to an object of a scene."""
    x, y, z = point_3N.astype(np.float64)
    x, z = x - solid.x, z - solid.z
    cos, sin = math.cos(solid.yaw), math.sin(solid.yaw)
    return implicit(solid.shape, x * cos - z * sin, y, x * sin + z * cos, solid.radius, solid.height)


def gradient(solid: SceneObject, point_3N: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Return the numerical gradient (3, N) of the signed distance."""
    moves = np.eye(3) * step
    slopes = [implicit_of(solid, point_3N + m[:, None]) - implicit_of(solid, point_3N - m[:, None]) for m in moves]
    return np.stack(slopes) / (2 * step)
