"""Many scenes as one table of objects, and the nearest hits of many rays among them.

Work is done on *pairs* of one ray and one object that may meet (see `reach.py`), so rays that meet nothing cost nothing.

Shape legend: S scenes, K object slots, M objects of all scenes, F facts per object, R rays, C pairs, H rays that hit;
3 is x, y, z in the world. float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fourfold.scenes.world import solids
from fourfold.scenes.world.scene import Scene
from fourfold.scenes.world.vocabulary import COLOR_VALUES, SHAPES

X, Z, RADIUS, HEIGHT, COS, SIN, BOUND, STRIPES, RED, GREEN, BLUE = range(11)
BOX = SHAPES.index("box")  # the only shape that looks different when turned
SURFACE = np.float32(1e-3)  # meters; what lies nearer along a shadow ray is the surface itself


@dataclass(frozen=True)
class World:
    """The objects of S scenes."""

    facts_FM: np.ndarray
    shape_M: np.ndarray  # index into SHAPES
    scene_M: np.ndarray
    slot_M: np.ndarray  # position of the object in its scene
    object_KS: np.ndarray  # which of M, -1 for an empty slot


def world_of(scenes: Sequence[Scene]) -> World:
    """Gather the objects of scenes; colors become about linear (squared from sRGB)."""
    object_KS = np.full((max(len(s.objects) for s in scenes), len(scenes)), -1)
    facts: list[tuple[float, ...]] = []
    shapes, rows, slots = [], [], []
    for row, scene in enumerate(scenes):
        for slot, thing in enumerate(scene.objects):
            object_KS[slot, row] = len(facts)
            bound = thing.radius if thing.shape == "sphere" else np.hypot(thing.footprint, thing.height / 2)
            place = (thing.x, thing.z, thing.radius, thing.height, np.cos(thing.yaw), np.sin(thing.yaw), bound)
            facts.append((*place, thing.texture == "striped", *(v * v for v in COLOR_VALUES[thing.color])))
            shapes.append(SHAPES.index(thing.shape))
            rows.append(row)
            slots.append(slot)
    facts_FM = np.ascontiguousarray(np.array(facts, dtype=np.float32).T)
    return World(facts_FM, np.array(shapes), np.array(rows), np.array(slots), object_KS)


@dataclass(frozen=True)
class Hits:
    """The nearest object of each of R rays, and what is known where it is hit."""

    depth_R: np.ndarray  # multiples of the ray's length; inf where no object is hit
    object_R: np.ndarray  # which of M; -1 where none is hit
    alone_M: np.ndarray  # number of rays that would hit the object if it stood alone
    ray_H: np.ndarray
    object_H: np.ndarray
    direction_3H: np.ndarray
    point_3H: np.ndarray
    normal_3H: np.ndarray  # unit


def nearest(
    world: World, origin: np.ndarray, ray_C: np.ndarray, object_C: np.ndarray, direction_3C: np.ndarray, num_rays: int
) -> Hits:
    """Return the nearest hit in front of `origin` (3, 1) of each ray; pair c joins ray `ray_C[c]` to `object_C[c]`."""
    enter_C, _ = intersect(world, origin, direction_3C, object_C)
    hit_C = np.flatnonzero((enter_C > 0) & (enter_C < solids.MISS))
    depth_R, pair_R = np.full(num_rays, np.inf, dtype=np.float32), np.full(num_rays, -1)
    slot_C = world.slot_M[object_C[hit_C]]
    for slot in range(len(world.object_KS)):  # within a slot, no ray comes twice
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
    alone_M = np.bincount(object_C[hit_C], minlength=len(world.slot_M))
    return Hits(depth_R, object_R, alone_M, ray_H, object_H, direction_3H, point_3H, _normals(world, point_3H, object_H))


def intersect(world: World, origin_3C: np.ndarray, direction_3C: np.ndarray, object_C: np.ndarray) -> solids.Interval:
    """Return where (enter_C, leave_C) each ray passes its object; see `solids.intersect`."""
    enter_C, leave_C = np.empty(len(object_C), dtype=np.float32), np.empty(len(object_C), dtype=np.float32)
    for number, pair, facts_FC in _by_shape(world, object_C):
        at_3C = into_object_frame(number, facts_FC, origin_3C if origin_3C.shape[1] == 1 else origin_3C[:, pair], True)
        along_3C = into_object_frame(number, facts_FC, direction_3C[:, pair], False)
        enter_C[pair], leave_C[pair] = solids.intersect(SHAPES[number], at_3C, along_3C, facts_FC[RADIUS], facts_FC[HEIGHT])
    return enter_C, leave_C


def _by_shape(world: World, object_C: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Return, per shape that occurs, its number, its pairs and what their intersection needs (4 or 6, C)."""
    shape_C, groups = world.shape_M[object_C], []
    for number in range(len(SHAPES)):
        pair = np.flatnonzero(shape_C == number)
        if len(pair):
            facts_FM = world.facts_FM[: SIN + 1 if number == BOX else HEIGHT + 1]  # place, size and, for boxes, turn
            groups.append((number, pair, facts_FM[:, object_C[pair]]))
    return groups


def into_object_frame(number: int, facts_FC: np.ndarray, vector_3C: np.ndarray, is_point: bool) -> solids.Vector:
    """Turn world points or directions into the frame of each object (see `solids.py`)."""
    x, y, z = vector_3C
    if is_point:
        x, z = x - facts_FC[X], z - facts_FC[Z]
    if number == BOX:
        cos, sin = facts_FC[COS], facts_FC[SIN]
        x, z = x * cos - z * sin, x * sin + z * cos
    return x, y, z


def _normals(world: World, point_3H: np.ndarray, object_H: np.ndarray) -> np.ndarray:
    normal_3H = np.empty_like(point_3H)
    for number, pair, facts_FC in _by_shape(world, object_H):
        local_3C = into_object_frame(number, facts_FC, point_3H[:, pair], True)
        x, y, z = solids.outward(SHAPES[number], local_3C, facts_FC[RADIUS], facts_FC[HEIGHT])
        if number == BOX:
            cos, sin = facts_FC[COS], facts_FC[SIN]
            x, z = x * cos + z * sin, z * cos - x * sin
        normal_3H[0, pair], normal_3H[1, pair], normal_3H[2, pair] = x, y, z
    return normal_3H


def blocked(world: World, point_3C: np.ndarray, light_3C: np.ndarray, object_C: np.ndarray) -> np.ndarray:
    """Return (C,) bool: does the object stand between the point and the light?"""
    _, leave_C = intersect(world, point_3C, light_3C, object_C)
    return leave_C > SURFACE
