"""Ray tracing: many scenes as one table of objects, and the nearest hit of each ray.

Intersections are computed for *pairs* of one ray and one object that may meet (see `reach.py`), so rays that meet no object
cost nothing.

Shape legend: S scenes, K object slots, M objects of all scenes, F features of an object, R rays, C pairs, H rays that hit;
3 is x, y, z in the world. float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fourfold.scenes.world import solids
from fourfold.scenes.world.scene import Scene
from fourfold.scenes.world.vocabulary import COLOR_VALUES, SHAPES

X, Z, RADIUS, HEIGHT, COS, SIN, BOUND, STRIPES, RED, GREEN, BLUE = range(11)
BOX = SHAPES.index("box")  # the only shape without rotational symmetry
SURFACE = np.float32(1e-3)  # meters; a nearer hit of a shadow ray is the surface that it starts from


@dataclass(frozen=True)
class SceneBatch:
    """The objects of S scenes as one table."""

    features_FM: np.ndarray  # rows X to BLUE: position, size, yaw, bounding radius, stripes, color in linear light
    shape_M: np.ndarray  # index into SHAPES
    scene_M: np.ndarray
    slot_M: np.ndarray  # index of the object in its scene
    object_KS: np.ndarray  # index into M, -1 for an empty slot


def gather_objects(scenes: Sequence[Scene]) -> SceneBatch:
    """Collect the objects of scenes; colors become approximately linear (the square of sRGB)."""
    object_KS = np.full((max(len(s.objects) for s in scenes), len(scenes)), -1)
    features: list[tuple[float, ...]] = []
    shapes, rows, slots = [], [], []
    for row, scene in enumerate(scenes):
        for slot, solid in enumerate(scene.objects):
            object_KS[slot, row] = len(features)
            bound = solid.radius if solid.shape == "sphere" else np.hypot(solid.footprint, solid.height / 2)
            geometry = (solid.x, solid.z, solid.radius, solid.height, np.cos(solid.yaw), np.sin(solid.yaw), bound)
            features.append((*geometry, solid.texture == "striped", *(v * v for v in COLOR_VALUES[solid.color])))
            shapes.append(SHAPES.index(solid.shape))
            rows.append(row)
            slots.append(slot)
    features_FM = np.ascontiguousarray(np.array(features, dtype=np.float32).T)
    return SceneBatch(features_FM, np.array(shapes), np.array(rows), np.array(slots), object_KS)


@dataclass(frozen=True)
class Hits:
    """The nearest object of each of R rays, and point and normal of each of H hits."""

    depth_R: np.ndarray  # multiples of the ray's length; inf where no object is hit
    object_R: np.ndarray  # index into M; -1 where no object is hit
    alone_M: np.ndarray  # number of rays that would hit the object without the others
    ray_H: np.ndarray
    object_H: np.ndarray
    direction_3H: np.ndarray
    point_3H: np.ndarray
    normal_3H: np.ndarray  # unit


def nearest(
    batch: SceneBatch, origin: np.ndarray, ray_C: np.ndarray, object_C: np.ndarray, direction_3C: np.ndarray, num_rays: int
) -> Hits:
    """Return the nearest hit in front of `origin` (3, 1) of each ray; pair c joins ray `ray_C[c]` to `object_C[c]`."""
    enter_C, _ = intersect(batch, origin, direction_3C, object_C)
    hit_C = np.flatnonzero((enter_C > 0) & (enter_C < solids.MISS))
    depth_R, pair_R = np.full(num_rays, np.inf, dtype=np.float32), np.full(num_rays, -1)
    slot_C = batch.slot_M[object_C[hit_C]]
    for slot in range(len(batch.object_KS)):  # within a slot, each ray occurs once
        pair = hit_C[slot_C == slot]
        pair = pair[enter_C[pair] < depth_R[ray_C[pair]]]
        depth_R[ray_C[pair]] = enter_C[pair]
        pair_R[ray_C[pair]] = pair
    ray_H = np.flatnonzero(pair_R >= 0)
    pair_H = pair_R[ray_H]
    object_H, direction_3H = object_C[pair_H], direction_3C[:, pair_H]
    object_R = np.full(num_rays, -1)
    object_R[ray_H] = object_H
    point_3H = origin + enter_C[pair_H] * direction_3H
    alone_M = np.bincount(object_C[hit_C], minlength=len(batch.slot_M))
    return Hits(depth_R, object_R, alone_M, ray_H, object_H, direction_3H, point_3H, _normals(batch, point_3H, object_H))


def intersect(batch: SceneBatch, origin_3C: np.ndarray, direction_3C: np.ndarray, object_C: np.ndarray) -> solids.Interval:
    """Return where each ray enters and leaves its object, (enter_C, leave_C); see `solids.intersect`."""
    enter_C, leave_C = np.empty(len(object_C), dtype=np.float32), np.empty(len(object_C), dtype=np.float32)
    for number, pair, features_FC in _by_shape(batch, object_C):
        from_3C = into_object_frame(number, features_FC, origin_3C if origin_3C.shape[1] == 1 else origin_3C[:, pair], True)
        along_3C = into_object_frame(number, features_FC, direction_3C[:, pair], False)
        enter_C[pair], leave_C[pair] = solids.intersect(
            SHAPES[number], from_3C, along_3C, features_FC[RADIUS], features_FC[HEIGHT]
        )
    return enter_C, leave_C


def _by_shape(batch: SceneBatch, object_C: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Return, for each shape that occurs, its index, its pairs, and the features that their intersection needs (4 or 6, C)."""
    shape_C, groups = batch.shape_M[object_C], []
    for number in range(len(SHAPES)):
        pair = np.flatnonzero(shape_C == number)
        if len(pair):
            features_FM = batch.features_FM[: SIN + 1 if number == BOX else HEIGHT + 1]  # position, size and, for boxes, yaw
            groups.append((number, pair, features_FM[:, object_C[pair]]))
    return groups


def into_object_frame(number: int, features_FC: np.ndarray, vector_3C: np.ndarray, is_point: bool) -> solids.Vector:
    """Transform world points or directions into the frame of each object (see `solids.py`)."""
    x, y, z = vector_3C
    if is_point:
        x, z = x - features_FC[X], z - features_FC[Z]
    if number == BOX:
        cos, sin = features_FC[COS], features_FC[SIN]
        x, z = x * cos - z * sin, x * sin + z * cos
    return x, y, z


def _normals(batch: SceneBatch, point_3H: np.ndarray, object_H: np.ndarray) -> np.ndarray:
    normal_3H = np.empty_like(point_3H)
    for number, pair, features_FC in _by_shape(batch, object_H):
        local_3C = into_object_frame(number, features_FC, point_3H[:, pair], True)
        x, y, z = solids.outward(SHAPES[number], local_3C, features_FC[RADIUS], features_FC[HEIGHT])
        if number == BOX:
            cos, sin = features_FC[COS], features_FC[SIN]
            x, z = x * cos + z * sin, z * cos - x * sin
        normal_3H[0, pair], normal_3H[1, pair], normal_3H[2, pair] = x, y, z
    return normal_3H


def blocked(batch: SceneBatch, point_3C: np.ndarray, light_3C: np.ndarray, object_C: np.ndarray) -> np.ndarray:
    """Return (C,) bool: whether the object is between the point and the light."""
    _, leave_C = intersect(batch, point_3C, light_3C, object_C)
    return leave_C > SURFACE
