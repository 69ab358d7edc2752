"""Many scenes as arrays, and the nearest hits of many rays in them.

Shape legend: S scenes, K object slots, F facts per object, A × B a block of rays (either S scenes × P pixels, or 1 × R
single rays), C candidate pairs of one ray and one object. Rays and facts are given as arrays that broadcast to (A, B), so the
camera's rays are never copied per scene; facts are (S, 1) or (1, R) at the end. float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fourfold.data.scenes import solids
from fourfold.data.scenes.scene import Scene
from fourfold.data.scenes.vocabulary import COLOUR_VALUES, SHAPES

X, Z, RADIUS, HEIGHT, COS, SIN, BOUND_SQUARED, SHAPE, STRIPES, RED, GREEN, BLUE = range(12)
NUM_FACTS = 12
EMPTY = -1.0  # shape of an empty slot
SURFACE = np.float32(1e-3)  # metres; what lies nearer along a shadow ray is the surface itself


def object_facts(scenes: Sequence[Scene]) -> np.ndarray:
    """Return (K, F, S) float32: the facts of each object; unused slots have shape EMPTY and an empty bound."""
    facts_SKF = np.zeros((len(scenes), max(len(s.objects) for s in scenes), NUM_FACTS))
    facts_SKF[:, :, SHAPE] = EMPTY
    facts_SKF[:, :, BOUND_SQUARED] = -1
    for row, scene in enumerate(scenes):
        for slot, thing in enumerate(scene.objects):
            bound = thing.radius**2 if thing.shape == "sphere" else thing.footprint**2 + thing.height**2 / 4
            facts_SKF[row, slot] = (
                *(thing.x, thing.z, thing.radius, thing.height, np.cos(thing.yaw), np.sin(thing.yaw), bound * 1.001),
                *(SHAPES.index(thing.shape), thing.texture == "striped", *(v * v for v in COLOUR_VALUES[thing.colour])),
            )
    return np.ascontiguousarray(facts_SKF.transpose(1, 2, 0), dtype=np.float32)


@dataclass(frozen=True)
class Candidates:
    """Pairs of a ray and an object that may meet, ordered by slot. `a_C`, `b_C` place the ray, `starts` the slots."""

    a_C: np.ndarray
    b_C: np.ndarray
    facts_FC: np.ndarray
    starts: list[int]

    @property
    def shapes_C(self) -> np.ndarray:
        """Index into SHAPES."""
        return self.facts_FC[SHAPE]


def candidates(
    origin: Sequence[np.ndarray], ray: Sequence[np.ndarray], facts_KFAB: np.ndarray, keep: Sequence[np.ndarray] | None = None
) -> Candidates:
    """Return pairs whose ray meets the object's bounding sphere ahead of the origin; `keep` says per slot which rays to try."""
    length_squared = ray[0] * ray[0] + ray[1] * ray[1] + ray[2] * ray[2]
    a_parts, b_parts, fact_parts, starts = [], [], [], [0]
    for slot, facts_FAB in enumerate(facts_KFAB):
        height, bound = facts_FAB[HEIGHT], facts_FAB[BOUND_SQUARED]
        x, y, z = origin[0] - facts_FAB[X], origin[1] - height * np.float32(0.5), origin[2] - facts_FAB[Z]
        along = x * ray[0] + y * ray[1] + z * ray[2]
        outside = x * x + y * y + z * z - bound
        near = (along * along > length_squared * outside) & ((along < 0) | (outside < 0)) & (bound > 0)
        a_C, b_C = np.nonzero(near if keep is None else near & keep[slot])
        a_parts.append(a_C)
        b_parts.append(b_C)
        fact_parts.append(take_all(facts_FAB, a_C, b_C))
        starts.append(starts[-1] + len(a_C))
    return Candidates(np.concatenate(a_parts), np.concatenate(b_parts), np.concatenate(fact_parts, axis=1), starts)


def take_all(facts_FAB: np.ndarray, a_C: np.ndarray, b_C: np.ndarray) -> np.ndarray:
    """Return (..., C): the facts of rows (A × 1) or of single rays (1 × B) at places of the block."""
    *front, rows, columns = facts_FAB.shape
    assert rows == 1 or columns == 1
    return np.take(facts_FAB.reshape(*front, rows * columns), b_C if rows == 1 and columns > 1 else a_C, axis=-1)


def take(value_AB: np.ndarray, a_C: np.ndarray, b_C: np.ndarray) -> np.ndarray:
    """Return the entries (C) of an array that broadcasts to (A, B)."""
    rows, columns = value_AB.shape
    if rows == 1:
        return np.take(value_AB[0], b_C) if columns > 1 else np.broadcast_to(value_AB[0, 0], a_C.shape)
    return np.take(value_AB[:, 0], a_C) if columns == 1 else value_AB[a_C, b_C]


def into_object_frame(facts_FC: np.ndarray, vector_3C: Sequence[np.ndarray], is_point: bool) -> np.ndarray:
    """Turn world points or directions (3, C) into the frame of each object (see `solids.py`)."""
    x, y, z = vector_3C
    if is_point:
        x, z = x - facts_FC[X], z - facts_FC[Z]
    cos, sin = facts_FC[COS], facts_FC[SIN]
    return np.stack([x * cos - z * sin, y, x * sin + z * cos])


def out_of_object_frame(facts_FC: np.ndarray, vector_3C: np.ndarray) -> np.ndarray:
    """Turn directions (3, C) of object frames into the world's."""
    x, y, z = vector_3C
    cos, sin = facts_FC[COS], facts_FC[SIN]
    return np.stack([x * cos + z * sin, y, z * cos - x * sin])


def intervals(
    pairs: Candidates, origin: Sequence[np.ndarray], ray: Sequence[np.ndarray]
) -> tuple[solids.Interval, np.ndarray, np.ndarray]:
    """Return (enter_C, leave_C) of each pair and the origin and ray (3, C) in the object's frame."""
    origin_3C = into_object_frame(pairs.facts_FC, [take(v, pairs.a_C, pairs.b_C) for v in origin], is_point=True)
    ray_3C = into_object_frame(pairs.facts_FC, [take(v, pairs.a_C, pairs.b_C) for v in ray], is_point=False)
    enter_C, leave_C = np.empty_like(ray_3C[0]), np.empty_like(ray_3C[0])
    for number, shape in enumerate(SHAPES):
        of_shape = np.flatnonzero(pairs.shapes_C == number)
        size_2C = np.take(pairs.facts_FC[[RADIUS, HEIGHT]], of_shape, axis=1)
        enter_C[of_shape], leave_C[of_shape] = solids.intersect(
            shape, np.take(origin_3C, of_shape, axis=1), np.take(ray_3C, of_shape, axis=1), *size_2C
        )
    return (enter_C, leave_C), origin_3C, ray_3C


@dataclass(frozen=True)
class Hits:
    """The nearest object of each ray of a block, and what is known where it is hit (H hit rays)."""

    depth_AB: np.ndarray  # multiples of the ray's length; inf where no object is hit
    slot_AB: np.ndarray  # int8, -1 where no object is hit
    covered_KA: np.ndarray  # rays of each row that would hit the object if it stood alone
    a_H: np.ndarray
    b_H: np.ndarray
    facts_FH: np.ndarray
    local_3H: np.ndarray  # place in the object's frame
    point_3H: np.ndarray  # place in the world
    normal_3H: np.ndarray  # unit, world frame


def nearest(origin: Sequence[np.ndarray], ray: Sequence[np.ndarray], facts_KFAB: np.ndarray, shape_AB: tuple[int, ...]) -> Hits:
    """Trace a block of camera rays: the nearest hit in front of the origin."""
    pairs = candidates(origin, ray, facts_KFAB)
    (enter_C, _), origin_3C, ray_3C = intervals(pairs, origin, ray)
    depth, winner = np.full(shape_AB, np.inf, dtype=np.float32), np.full(shape_AB, -1, dtype=np.int32)
    slot_AB = np.full(shape_AB, -1, dtype=np.int8)
    ray_C = pairs.a_C * shape_AB[1] + pairs.b_C
    hit_C = (enter_C > 0) & (enter_C < solids.MISS)
    covered_KA = []
    for slot in range(len(facts_KFAB)):
        pair = pairs.starts[slot] + np.flatnonzero(hit_C[pairs.starts[slot] : pairs.starts[slot + 1]])
        covered_KA.append(np.bincount(pairs.a_C[pair], minlength=shape_AB[0]))
        pair = pair[enter_C[pair] < depth.ravel()[ray_C[pair]]]
        depth.ravel()[ray_C[pair]] = enter_C[pair]
        winner.ravel()[ray_C[pair]] = pair
        slot_AB.ravel()[ray_C[pair]] = slot
    won = winner.ravel()
    won = won[won >= 0]
    a_H, b_H = pairs.a_C[won], pairs.b_C[won]
    facts_FH, local_3H = pairs.facts_FC[:, won], origin_3C[:, won] + enter_C[won] * ray_3C[:, won]
    point_3H = np.stack([take(o, a_H, b_H) + enter_C[won] * take(r, a_H, b_H) for o, r in zip(origin, ray, strict=True)])
    normal_3H = out_of_object_frame(facts_FH, _local_normals(facts_FH, local_3H))
    return Hits(depth, slot_AB, np.stack(covered_KA), a_H, b_H, facts_FH, local_3H, point_3H, normal_3H)


def _local_normals(facts_FH: np.ndarray, local_3H: np.ndarray) -> np.ndarray:
    normal_3H = np.empty_like(local_3H)
    for number, shape in enumerate(SHAPES):
        of_shape = np.flatnonzero(facts_FH[SHAPE] == number)
        size_2C = np.take(facts_FH[[RADIUS, HEIGHT]], of_shape, axis=1)
        normal_3H[:, of_shape] = solids.outward(shape, np.take(local_3H, of_shape, axis=1), *size_2C)
    return normal_3H


def shadowed(
    origin: Sequence[np.ndarray],
    light: Sequence[np.ndarray],
    facts_KFAB: np.ndarray,
    shape_AB: tuple[int, ...],
    keep: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """Return (A, B) bool: is there an object between the point and the light? `keep` leaves out the point's own."""
    pairs = candidates(origin, light, facts_KFAB, keep)
    (_, leave_C), _, _ = intervals(pairs, origin, light)
    blocked = leave_C > SURFACE
    shadow_AB = np.zeros(shape_AB, dtype=bool)
    shadow_AB[pairs.a_C[blocked], pairs.b_C[blocked]] = True
    return shadow_AB
