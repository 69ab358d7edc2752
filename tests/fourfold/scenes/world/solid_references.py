"""What is inside each solid, said as one inequality in float64: the judge of intersections, normals and truth."""

import math

import numpy as np

from fourfold.scenes.world import SceneObject


def implicit(shape: str, x: np.ndarray, y: np.ndarray, z: np.ndarray, radius: float, height: float) -> np.ndarray:
    """Negative inside, 0 on the surface; in meters near the surface. The object's own frame."""
    if shape == "sphere":
        return np.sqrt(x**2 + (y - radius) ** 2 + z**2) - radius
    if shape == "box":
        return np.maximum.reduce([np.abs(x) - radius, np.abs(z) - radius, np.abs(y - height / 2) - height / 2])
    if shape == "cylinder":
        return np.maximum(np.hypot(x, z) - radius, np.abs(y - height / 2) - height / 2)
    slant = math.hypot(radius, height)
    return np.maximum((np.hypot(x, z) * height - (height - y) * radius) / slant, -y)


def implicit_of(thing: SceneObject, point_3N: np.ndarray) -> np.ndarray:
    """The same for world points and an object of a scene, turned as the object is."""
    x, y, z = point_3N.astype(np.float64)
    x, z = x - thing.x, z - thing.z
    cos, sin = math.cos(thing.yaw), math.sin(thing.yaw)
    return implicit(thing.shape, x * cos - z * sin, y, x * sin + z * cos, thing.radius, thing.height)


def gradient(thing: SceneObject, point_3N: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Numerical outward direction (3, N)."""
    moves = np.eye(3) * step
    slopes = [implicit_of(thing, point_3N + m[:, None]) - implicit_of(thing, point_3N - m[:, None]) for m in moves]
    return np.stack(slopes) / (2 * step)
