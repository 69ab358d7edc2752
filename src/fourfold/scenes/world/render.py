"""Renders scenes: images and exact truth (depth, normals, classes, boxes and visible shares).

Truth is that of the ray through the center of each pixel. Colors come from the same ray, except where neighbors differ:
there four more rays per pixel smooth the edge (2 × 2, rotated grid).

Shape legend: S scenes, P = H · W pixels, R rays (S · P, or four for each of E pixels at edges), K object slots; see
`tracing.py`.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np

from fourfold.scenes.world.backdrop import Backdrop, backdrop
from fourfold.scenes.world.camera import SceneCamera
from fourfold.scenes.world.config import ScenesConfig
from fourfold.scenes.world.reach import Reach, reach_of_bodies, reach_of_shadows
from fourfold.scenes.world.scene import Scene
from fourfold.scenes.world.shading import shade_objects, shading_pairs
from fourfold.scenes.world.tracing import Hits, SceneBatch, blocked, gather_objects, nearest
from fourfold.scenes.world.vocabulary import CLASS_NAMES, GROUND_ID, SHAPES, SKY_ID

CHUNK_PIXELS = 64 * 64 * 64  # rays of one chunk: enough to outweigh the calls, few enough for the cache of a core
EDGE = 14  # sRGB steps of 255 between neighbors
EDGE_OFFSETS = ((0.125, 0.375), (0.375, 0.875), (0.875, 0.625), (0.625, 0.125))
CLASS_OF_SHAPE = np.array([CLASS_NAMES.index(shape) for shape in SHAPES], dtype=np.uint8)


@dataclass(frozen=True)
class RenderedBatch:
    """Images and truth of S scenes. A slot K without an object, or with an invisible one, has box 0 and share 0."""

    rgb: np.ndarray  # (S, H, W, 3) uint8 sRGB
    depth: np.ndarray  # (S, H, W) float32 meters along the viewing axis; that of the far plane in the sky
    normal: np.ndarray  # (S, H, W, 3) float32 unit vectors in the camera frame; (0, 0, -1) in the sky
    semseg: np.ndarray  # (S, H, W) uint8 ids into CLASS_NAMES
    instance: np.ndarray  # (S, H, W) int8 index of the object, -1 for ground and sky
    boxes: np.ndarray  # (S, K, 4) float32 xmin, ymin, xmax, ymax in 0-1, around the visible pixels
    visible: np.ndarray  # (S, K) float32 share of the object's own pixels that no other object hides
    num_pixels: np.ndarray  # (S, K) int32 visible pixels


def render(scenes: Sequence[Scene], config: ScenesConfig) -> RenderedBatch:
    """Render scenes; pixels do not depend on the other scenes of the batch or on the number of threads.

    Raises ValueError when there are no scenes.
    """
    if not scenes:
        raise ValueError("There are no scenes to render. Pass at least one scene.")
    step = max(1, CHUNK_PIXELS // config.image_size**2)
    chunks = [scenes[start : start + step] for start in range(0, len(scenes), step)]
    if len(chunks) == 1:
        return _render_chunk(chunks[0], config)
    with ThreadPoolExecutor(_num_threads()) as pool:
        parts = list(pool.map(lambda chunk: _render_chunk(chunk, config), chunks))
    return _concatenate(parts)


def _num_threads() -> int:
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _concatenate(parts: list[RenderedBatch]) -> RenderedBatch:
    slots = max(part.visible.shape[1] for part in parts)
    columns = {}
    for field in fields(RenderedBatch):
        values = [getattr(part, field.name) for part in parts]
        if field.name in ("boxes", "visible", "num_pixels"):
            values = [np.pad(v, [(0, 0), (0, slots - v.shape[1])] + [(0, 0)] * (v.ndim - 2)) for v in values]
        columns[field.name] = np.concatenate(values)
    return RenderedBatch(**columns)


def _render_chunk(scenes: Sequence[Scene], config: ScenesConfig) -> RenderedBatch:
    # 1) Collect the objects, and the candidate pixels of each object and shadow
    size, num, batch = config.image_size, len(scenes), gather_objects(scenes)
    light_3S = np.ascontiguousarray(np.array([one.light for one in scenes], dtype=np.float32).T)
    back, bodies = backdrop(scenes, config), reach_of_bodies(batch, config)
    shadows, shades_Q2 = reach_of_shadows(batch, light_3S, config), shading_pairs(batch, light_3S)
    # 2) Trace one ray through the center of each pixel
    ray_3P = _rays(config.camera, size)
    flat_C = bodies.scene_C * size**2 + bodies.pixel_C
    hits = nearest(batch, _eye(config), flat_C, bodies.object_C, ray_3P[:, bodies.pixel_C], num * size**2)
    dark_SP = _ground_shadows(batch, shadows, hits, back, ray_3P, light_3S)
    color_3R = _apply_shadows(back, dark_SP).reshape(3, -1)
    color_3R[:, hits.ray_H] = shade_objects(batch, hits, light_3S, shades_Q2)
    rgb_3SHW = _to_srgb(color_3R).reshape(3, num, size, size)
    # 3) Trace four more rays at edges
    slot_SHW = _slots(batch, hits).reshape(num, size, size)
    edge_R = np.flatnonzero(_edges(rgb_3SHW, slot_SHW, dark_SP.reshape(num, size, size)))
    if len(edge_R):
        smoother = _Smoother(batch, back, bodies, shadows, light_3S, shades_Q2, config)
        rgb_3SHW.reshape(3, -1)[:, edge_R] = smoother.smooth(edge_R)
    # 4) Return the truth of the central rays
    boxes_SK4, num_pixels_SK = _boxes(slot_SHW, len(batch.object_KS))
    alone_SK = np.where(batch.object_KS < 0, 1, hits.alone_M[batch.object_KS]).T
    return RenderedBatch(
        rgb=np.ascontiguousarray(rgb_3SHW.transpose(1, 2, 3, 0)),
        depth=np.minimum(hits.depth_R.reshape(num, -1), back.depth_P).reshape(num, size, size),
        normal=_normals(hits, back, num, config).reshape(num, size, size, 3),
        semseg=_classes(batch, hits, back, num).reshape(num, size, size),
        instance=slot_SHW,
        boxes=boxes_SK4,
        visible=(num_pixels_SK / np.maximum(alone_SK, 1)).astype(np.float32),
        num_pixels=num_pixels_SK,
    )


def _eye(config: ScenesConfig) -> np.ndarray:
    return np.array([[0], [config.camera.height], [0]], dtype=np.float32)


@lru_cache(maxsize=16)
def _rays(camera: SceneCamera, size: int, offset: tuple[float, float] = (0.5, 0.5)) -> np.ndarray:
    """Return rays (3, P) in the world frame, with z = 1 in the camera's."""
    return camera.to_world(camera.rays(size, size, offset)).astype(np.float32)


def _slots(batch: SceneBatch, hits: Hits) -> np.ndarray:
    slot_R = np.full(len(hits.object_R), -1, dtype=np.int8)
    slot_R[hits.ray_H] = batch.slot_M[hits.object_H]
    return slot_R


def _ground_shadows(
    batch: SceneBatch, shadows: Reach, hits: Hits, back: Backdrop, ray_3P: np.ndarray, light_3S: np.ndarray
) -> np.ndarray:
    """Return (S, P) bool: whether the center of a pixel shows ground in a shadow."""
    num, num_pixels = light_3S.shape[1], len(back.depth_P)
    flat_C = shadows.scene_C * num_pixels + shadows.pixel_C
    pair = np.flatnonzero(back.is_ground_P[shadows.pixel_C] & (hits.object_R[flat_C] < 0))
    pixel, scene = shadows.pixel_C[pair], shadows.scene_C[pair]
    dark = _is_dark(batch, back.depth_P[pixel], ray_3P[:, pixel], light_3S[:, scene], shadows.object_C[pair])
    dark_SP = np.zeros((num, num_pixels), dtype=bool)
    dark_SP[scene[dark], pixel[dark]] = True
    return dark_SP


def _is_dark(
    batch: SceneBatch, depth_C: np.ndarray, ray_3C: np.ndarray, light_3C: np.ndarray, object_C: np.ndarray
) -> np.ndarray:
    ground_3C = np.stack([ray_3C[0] * depth_C, np.zeros_like(depth_C), ray_3C[2] * depth_C])
    return blocked(batch, ground_3C, light_3C, object_C)


def _apply_shadows(back: Backdrop, dark_SP: np.ndarray) -> np.ndarray:
    color_3SP = back.sunlit_3SP.copy()
    scene, pixel = np.nonzero(dark_SP)
    left = back.shadow_S[scene]
    haze = back.haze_3SP[:, scene, pixel]
    color_3SP[:, scene, pixel] = haze + (color_3SP[:, scene, pixel] - haze) * left
    return color_3SP


def _to_srgb(color_3R: np.ndarray) -> np.ndarray:
    """Return (3, R) uint8; the square root approximates the sRGB curve (sqrt is rounded exactly, pow is not)."""
    return (np.sqrt(np.minimum(color_3R, np.float32(1))) * np.float32(255) + np.float32(0.5)).astype(np.uint8)


def _edges(rgb_3SHW: np.ndarray, slot_SHW: np.ndarray, dark_SHW: np.ndarray) -> np.ndarray:
    """Return (S, H, W) bool: pixels next to another object or the border of a shadow, or to another tone of their object.

    The backdrop alone is smooth and left out.
    """
    kind_SHW = slot_SHW + np.int8(2) - (dark_SHW & (slot_SHW < 0)).astype(np.int8)
    edge_SHW = np.zeros(slot_SHW.shape, dtype=bool)
    for one, two in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[:, :, 1:], np.s_[:, :, :-1])):
        differs = (kind_SHW[one] != kind_SHW[two]) | (kind_SHW[one] > 1)
        red, green, blue = (np.maximum(v[one], v[two]) - np.minimum(v[one], v[two]) > EDGE for v in rgb_3SHW)
        differs &= red | green | blue
        edge_SHW[one] |= differs
        edge_SHW[two] |= differs
    return edge_SHW


@dataclass(frozen=True)
class _Smoother:
    """Traces four rays through each of some pixels; the backdrop keeps the color at the pixel's center, lit or in shadow."""

    batch: SceneBatch
    back: Backdrop
    bodies: Reach
    shadows: Reach
    light_3S: np.ndarray
    shades_Q2: np.ndarray
    config: ScenesConfig

    def smooth(self, edge_E: np.ndarray) -> np.ndarray:
        """Return (3, E) uint8: the mean, in linear light, of four rays through each pixel `edge_E` of S · P."""
        scene_E, pixel_E = np.divmod(edge_E, self.config.image_size**2)
        ray_3R = np.concatenate(
            [_rays(self.config.camera, self.config.image_size, offset)[:, pixel_E] for offset in EDGE_OFFSETS], axis=1
        )
        ray_C, object_C = self._pairs(self.bodies, scene_E, pixel_E)
        hits = nearest(self.batch, _eye(self.config), ray_C, object_C, ray_3R[:, ray_C], 4 * len(edge_E))
        color_3R = self._backdrop(hits, ray_3R, scene_E, pixel_E)
        color_3R[:, hits.ray_H] = shade_objects(self.batch, hits, self.light_3S, self.shades_Q2)
        one, two, three, four = np.minimum(color_3R, np.float32(1)).reshape(3, 4, -1).transpose(1, 0, 2)
        return _to_srgb((one + two + three + four) * np.float32(0.25))

    def _pairs(self, reach: Reach, scene_E: np.ndarray, pixel_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the candidate pairs of ray (of the four per pixel) and object."""
        slots_E, rays, objects = reach.slots_SP[scene_E, pixel_E], [], []
        for slot, object_S in enumerate(self.batch.object_KS):
            candidates = np.flatnonzero(slots_E & np.uint8(1 << slot))
            rays.append((candidates + len(scene_E) * np.arange(4)[:, None]).ravel())
            objects.append(np.tile(object_S[scene_E[candidates]], 4))
        return np.concatenate(rays), np.concatenate(objects)

    def _backdrop(self, hits: Hits, ray_3R: np.ndarray, scene_E: np.ndarray, pixel_E: np.ndarray) -> np.ndarray:
        falling_R = np.minimum(ray_3R[1], np.float32(-1e-6))
        depth_R = np.minimum(-np.float32(self.config.camera.height) / falling_R, np.float32(self.config.far))
        ray_C, object_C = self._pairs(self.shadows, scene_E, pixel_E)
        open_C = (hits.object_R[ray_C] < 0) & (depth_R[ray_C] < self.config.far)
        ray_C, object_C = ray_C[open_C], object_C[open_C]
        light_3C = self.light_3S[:, self.batch.scene_M[object_C]]
        dark_R = np.zeros(len(depth_R), dtype=bool)
        dark_R[ray_C[_is_dark(self.batch, depth_R[ray_C], ray_3R[:, ray_C], light_3C, object_C)]] = True
        sunlit_3E, haze_3E = self.back.sunlit_3SP[:, scene_E, pixel_E], self.back.haze_3SP[:, scene_E, pixel_E]
        shaded_3E = haze_3E + (sunlit_3E - haze_3E) * self.back.shadow_S[scene_E]
        return np.where(dark_R, np.tile(shaded_3E, 4), np.tile(sunlit_3E, 4))


def _normals(hits: Hits, back: Backdrop, num: int, config: ScenesConfig) -> np.ndarray:
    up_3 = config.camera.to_camera(np.array([0.0, 1.0, 0.0])).astype(np.float32)
    background_P3 = np.where(back.is_ground_P[:, None], up_3, np.array([0, 0, -1], dtype=np.float32))
    normal_R3 = np.tile(background_P3, (num, 1))
    normal_R3[hits.ray_H] = config.camera.to_camera(hits.normal_3H).T
    return normal_R3


def _classes(batch: SceneBatch, hits: Hits, back: Backdrop, num: int) -> np.ndarray:
    semseg_R = np.tile(np.where(back.is_ground_P, np.uint8(GROUND_ID), np.uint8(SKY_ID)), num)
    semseg_R[hits.ray_H] = CLASS_OF_SHAPE[batch.shape_M[hits.object_H]]
    return semseg_R


def _boxes(instance_SHW: np.ndarray, num_slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (S, K, 4) float32 around the visible pixels, and the numbers of visible pixels (S, K) int32."""
    num, height, width = instance_SHW.shape
    boxes_SK4 = np.zeros((num, num_slots, 4), dtype=np.float32)
    num_pixels_SK = np.zeros((num, num_slots), dtype=np.int32)
    for slot in range(num_slots):
        mask_SHW = instance_SHW == slot
        rows_SH, columns_SW = mask_SHW.any(axis=2), mask_SHW.any(axis=1)
        num_pixels_SK[:, slot] = np.count_nonzero(mask_SHW, axis=(1, 2))
        boxes_SK4[:, slot, 0] = columns_SW.argmax(axis=1) / width
        boxes_SK4[:, slot, 1] = rows_SH.argmax(axis=1) / height
        boxes_SK4[:, slot, 2] = 1 - columns_SW[:, ::-1].argmax(axis=1) / width
        boxes_SK4[:, slot, 3] = 1 - rows_SH[:, ::-1].argmax(axis=1) / height
    boxes_SK4[num_pixels_SK == 0] = 0
    return boxes_SK4, num_pixels_SK
