"""Scenes become pictures and exact truth: colours, depth, normals, classes, boxes and visible shares.

Truth belongs to the ray through the centre of each pixel. Colours are that ray's too, except where neighbours differ:
there four more rays per pixel smooth the edge (2 × 2, rotated grid).

Shape legend: S scenes, P = H · W pixels, E pixels at edges, R = 4 · E single rays, K object slots; see `tracing.py`.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np

from fourfold.data.scenes.config import ScenesConfig
from fourfold.data.scenes.scene import Scene
from fourfold.data.scenes.shading import ground_depth, scene_facts, shade
from fourfold.data.scenes.tracing import SHAPE, Hits, object_facts
from fourfold.data.scenes.vocabulary import CLASS_NAMES, GROUND_ID, SHAPES, SKY_ID

CHUNK_PIXELS = 16 * 64 * 64  # rays at a time: what a core's cache holds is rendered fastest
EDGE = 14  # sRGB steps of 255 between neighbours
EDGE_OFFSETS = ((0.125, 0.375), (0.375, 0.875), (0.875, 0.625), (0.625, 0.125))
CLASS_OF_SHAPE = np.array([CLASS_NAMES.index(shape) for shape in SHAPES], dtype=np.uint8)


@dataclass(frozen=True)
class RenderedBatch:
    """What is seen of S scenes. A slot K beyond a scene's objects, or one that is not seen, has box 0 and share 0."""

    rgb: np.ndarray  # (S, H, W, 3) uint8 sRGB
    depth: np.ndarray  # (S, H, W) float32 metres along the viewing axis; the sky has the far plane's
    normal: np.ndarray  # (S, H, W, 3) float32 unit vectors in the camera frame; the sky has (0, 0, -1)
    semseg: np.ndarray  # (S, H, W) uint8 ids into CLASS_NAMES
    instance: np.ndarray  # (S, H, W) int8 index of the object, -1 for ground and sky
    boxes: np.ndarray  # (S, K, 4) float32 xmin, ymin, xmax, ymax in 0-1, around the visible pixels
    visible: np.ndarray  # (S, K) float32 share of the object's own pixels that no other object hides
    num_pixels: np.ndarray  # (S, K) int32 visible pixels


def render(scenes: Sequence[Scene], config: ScenesConfig) -> RenderedBatch:
    """Render scenes; each one's pixels are the same whatever else is in the batch and however many threads work."""
    if not scenes:
        raise ValueError("There are no scenes to render. Pass at least one.")
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
    size, num = config.image_size, len(scenes)
    facts_KFS, looks_GS = object_facts(scenes), scene_facts(scenes)
    origin = [np.full((1, 1), v, dtype=np.float32) for v in (0, config.camera.height, 0)]
    ray_31P = _rays(config, (0.5, 0.5))[:, None]
    colour_3SP, hits = shade(origin, ray_31P, looks_GS[..., None], facts_KFS[..., None], config.far)
    rgb_SHW3 = _to_srgb(colour_3SP).reshape(num, size, size, 3)
    scene_E, pixel_E = np.nonzero(_edges(rgb_SHW3).reshape(num, -1))
    if len(scene_E):
        rgb_SHW3.reshape(num, -1, 3)[scene_E, pixel_E] = _smooth(scene_E, pixel_E, origin, looks_GS, facts_KFS, config)
    depth_1P, is_ground_1P = ground_depth(origin, ray_31P, config.far)
    instance_SHW = hits.slot_AB.reshape(num, size, size)
    boxes_SK4, num_pixels_SK = _boxes(instance_SHW, len(facts_KFS))
    return RenderedBatch(
        rgb=rgb_SHW3,
        depth=np.minimum(hits.depth_AB, depth_1P).reshape(num, size, size),
        normal=_normals(hits, is_ground_1P, config).reshape(num, size, size, 3),
        semseg=_classes(hits, is_ground_1P).reshape(num, size, size),
        instance=instance_SHW,
        boxes=boxes_SK4,
        visible=(num_pixels_SK / np.maximum(hits.covered_KA.T, 1)).astype(np.float32),
        num_pixels=num_pixels_SK,
    )


def _rays(config: ScenesConfig, offset: tuple[float, float]) -> np.ndarray:
    rays_3P = config.camera.rays(config.image_size, config.image_size, offset)
    return config.camera.to_world(rays_3P).astype(np.float32)


def _to_srgb(colour_3AB: np.ndarray) -> np.ndarray:
    """Return (A, B, 3) uint8; the square root stands in for the sRGB curve (sqrt is exact, pow is not)."""
    values_3AB = np.sqrt(np.minimum(colour_3AB, np.float32(1))) * np.float32(255) + np.float32(0.5)
    return np.ascontiguousarray(values_3AB.astype(np.uint8).transpose(1, 2, 0))


def _edges(rgb_SHW3: np.ndarray) -> np.ndarray:
    """Return (S, H, W) bool: pixels that differ from a neighbour."""
    values = rgb_SHW3.astype(np.int16)
    edge_SHW = np.zeros(rgb_SHW3.shape[:3], dtype=bool)
    down = (np.abs(values[:, 1:] - values[:, :-1]) > EDGE).any(axis=3)
    right = (np.abs(values[:, :, 1:] - values[:, :, :-1]) > EDGE).any(axis=3)
    edge_SHW[:, 1:] |= down
    edge_SHW[:, :-1] |= down
    edge_SHW[:, :, 1:] |= right
    edge_SHW[:, :, :-1] |= right
    return edge_SHW


def _smooth(
    scene_E: np.ndarray,
    pixel_E: np.ndarray,
    origin: Sequence[np.ndarray],
    looks_GS: np.ndarray,
    facts_KFS: np.ndarray,
    config: ScenesConfig,
) -> np.ndarray:
    """Return (E, 3) uint8: the mean, in linear light, of four rays through each pixel."""
    ray_3R = np.concatenate([_rays(config, offset)[:, pixel_E] for offset in EDGE_OFFSETS], axis=1)
    scene_R = np.tile(scene_E, len(EDGE_OFFSETS))
    looks_G1R, facts_KF1R = looks_GS[:, None, scene_R], facts_KFS[:, :, None, scene_R]
    colour_31R, _ = shade(origin, ray_3R[:, None], looks_G1R, facts_KF1R, config.far)
    one, two, three, four = np.minimum(colour_31R, np.float32(1)).reshape(3, 4, 1, -1).transpose(1, 0, 2, 3)
    return _to_srgb((one + two + three + four) * np.float32(0.25))[0]


def _normals(hits: Hits, is_ground_1P: np.ndarray, config: ScenesConfig) -> np.ndarray:
    up_3 = config.camera.to_camera(np.array([[0.0], [1.0], [0.0]]))[:, 0].astype(np.float32)
    background_1P3 = np.where(is_ground_1P[..., None], up_3, np.array([0, 0, -1], dtype=np.float32))
    normal_SP3 = np.repeat(background_1P3, hits.slot_AB.shape[0], axis=0)
    normal_SP3[hits.a_H, hits.b_H] = config.camera.to_camera(hits.normal_3H).T
    return normal_SP3


def _classes(hits: Hits, is_ground_1P: np.ndarray) -> np.ndarray:
    background_1P = np.where(is_ground_1P, np.uint8(GROUND_ID), np.uint8(SKY_ID))
    semseg_SP = np.repeat(background_1P, hits.slot_AB.shape[0], axis=0)
    semseg_SP[hits.a_H, hits.b_H] = CLASS_OF_SHAPE[hits.facts_FH[SHAPE].astype(np.intp)]
    return semseg_SP


def _boxes(instance_SHW: np.ndarray, num_slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (S, K, 4) float32 that touch the outer edges of the visible pixels, and visible pixels (S, K) int32."""
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
