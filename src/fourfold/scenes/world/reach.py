"""Candidate pixels: rectangles of the image outside of which an object, or its shadow on the ground, cannot be visible.

A rectangle contains the projection of the object's bounding box (or of the shadow of that box), so tracing only the pixels
inside gives the same image.

Shape legend: M objects, S scenes, P pixels, C pairs of one pixel and one object, N corner points per object.
"""

from dataclasses import dataclass

import numpy as np

from fourfold.scenes.world.config import ScenesConfig
from fourfold.scenes.world.tracing import COS, HEIGHT, RADIUS, SIN, SceneBatch, X, Z
from fourfold.scenes.world.vocabulary import SHAPES

NEAR = 0.05  # meters; an object with a nearer corner has no useful projection and gets the whole image


@dataclass(frozen=True)
class Reach:
    """Candidate pairs of pixel and object, and for each scene and pixel a bit for each candidate slot (uint8)."""

    scene_C: np.ndarray
    pixel_C: np.ndarray
    object_C: np.ndarray
    slots_SP: np.ndarray


def reach_of_bodies(batch: SceneBatch, config: ScenesConfig) -> Reach:
    """Return the pixels in which each object may be visible."""
    x_M4, z_M4 = _footprints(batch)
    zero_M4 = np.zeros_like(x_M4)
    top_M4 = zero_M4 + batch.features_FM[HEIGHT][:, None]
    corners = np.stack([np.concatenate([x_M4, x_M4], 1), np.concatenate([zero_M4, top_M4], 1), np.concatenate([z_M4, z_M4], 1)])
    return _reach(batch, corners, config)


def reach_of_shadows(batch: SceneBatch, light_3S: np.ndarray, config: ScenesConfig) -> Reach:
    """Return the pixels in which each object's shadow on the ground may be visible; `light_3S` points to the light."""
    x_M4, z_M4 = _footprints(batch)
    light_3M1 = light_3S[:, batch.scene_M, None].astype(np.float64)
    length_M1 = batch.features_FM[HEIGHT][:, None] / light_3M1[1]
    x = np.concatenate([x_M4, x_M4 - light_3M1[0] * length_M1], 1)
    z = np.concatenate([z_M4, z_M4 - light_3M1[2] * length_M1], 1)
    return _reach(batch, np.stack([x, np.zeros_like(x), z]), config)


def _footprints(batch: SceneBatch) -> tuple[np.ndarray, np.ndarray]:
    """Return x and z (M, 4) float64 of the corners of a rectangle on the ground around each object."""
    features_FM = batch.features_FM.astype(np.float64)
    is_box_M = batch.shape_M == SHAPES.index("box")
    half_M = features_FM[RADIUS] * np.where(is_box_M, np.abs(features_FM[COS]) + np.abs(features_FM[SIN]), 1) + 1e-3
    signs_24 = np.array([(-1, -1, 1, 1), (-1, 1, -1, 1)])
    return features_FM[X][:, None] + half_M[:, None] * signs_24[0], features_FM[Z][:, None] + half_M[:, None] * signs_24[1]


def _reach(batch: SceneBatch, corners_3MN: np.ndarray, config: ScenesConfig) -> Reach:
    size = config.image_size
    top_M, left_M, bottom_M, right_M = _rectangles(corners_3MN, config)
    width_M, height_M = np.maximum(right_M - left_M, 0), np.maximum(bottom_M - top_M, 0)
    count_M = width_M * height_M
    object_C = np.repeat(np.arange(len(count_M)), count_M)
    within_C = np.arange(count_M.sum()) - np.repeat(np.cumsum(count_M) - count_M, count_M)
    row_C, column_C = np.divmod(within_C, width_M[object_C])
    pixel_C = (row_C + top_M[object_C]) * size + column_C + left_M[object_C]
    slots_SP = np.zeros((batch.object_KS.shape[1], size, size), dtype=np.uint8)
    for number, (scene, slot) in enumerate(zip(batch.scene_M, batch.slot_M, strict=True)):
        slots_SP[scene, top_M[number] : bottom_M[number], left_M[number] : right_M[number]] |= np.uint8(1 << slot)
    return Reach(batch.scene_M[object_C], pixel_C, object_C, slots_SP.reshape(len(slots_SP), -1))


def _rectangles(corners_3MN: np.ndarray, config: ScenesConfig) -> tuple[np.ndarray, ...]:
    """Return top, left, bottom, right (M each) in pixels around projected world points; ends exclusive."""
    size = config.image_size
    fx, fy, cx, cy = config.camera.intrinsics(size, size)
    above_3MN = corners_3MN - np.array([0, config.camera.height, 0])[:, None, None]
    x, y, z = config.camera.to_camera(above_3MN)
    safe_M = (z > NEAR).all(axis=1)
    z = np.maximum(z, NEAR)
    column, row = x / z * fx + cx, y / z * fy + cy
    edges = (row.min(axis=1), column.min(axis=1), row.max(axis=1), column.max(axis=1))
    whole = (0, 0, size, size)
    rounded = [np.floor(edge) if end == 0 else np.ceil(edge) for edge, end in zip(edges, whole, strict=True)]
    return tuple(
        np.where(safe_M, np.clip(edge, 0, size), end).astype(np.int64) for edge, end in zip(rounded, whole, strict=True)
    )
