"""Intersections of rays with solids, and normals on their surfaces, in closed form.

Only + - * / sqrt and comparisons affect pixels. IEEE 754 defines their rounding, so a pixel does not depend on its batch,
the number of threads, or the vector units of the machine.

Shape legend: C candidate pairs of one ray and one object; 3 is x, y, z in the object's frame (origin on the ground below
its middle, y up, boxes aligned with the axes). Everything float32.
"""

import numpy as np

from fourfold.scenes.world.vocabulary import SHAPES

MISS = np.float32(np.inf)
Interval = tuple[np.ndarray, np.ndarray]
Vector = tuple[np.ndarray, np.ndarray, np.ndarray]  # x, y, z


def intersect(shape: str, origin_3C: Vector, ray_3C: Vector, radius_C: np.ndarray, height_C: np.ndarray) -> Interval:
    """Return (enter_C, leave_C) in multiples of the ray's length; a miss is (inf, -inf).

    Both ends may be behind the origin: the object is visible if 0 < enter, and casts a shadow if 0 < leave.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        enter_C, leave_C = _INTERSECTIONS[shape](origin_3C, ray_3C, radius_C, height_C)
        hit_C = enter_C < leave_C  # false for NaN
    return np.where(hit_C, enter_C, MISS), np.where(hit_C, leave_C, -MISS)


def outward(shape: str, point_3C: Vector, radius_C: np.ndarray, height_C: np.ndarray) -> np.ndarray:
    """Return unit outward normals (3, C) at points on the surface."""
    return _NORMALS[shape](point_3C, radius_C, height_C)


def _roots(a_C: np.ndarray, b_C: np.ndarray, c_C: np.ndarray) -> Interval:
    """Return the ordered roots of a t² + 2 b t + c, without cancellation; NaN when there are none."""
    root_C = np.sqrt(b_C * b_C - a_C * c_C)
    q_C = np.where(b_C > 0, -b_C - root_C, root_C - b_C)
    one_C, two_C = q_C / a_C, c_C / q_C
    return np.minimum(one_C, two_C), np.maximum(one_C, two_C)


def _slab(origin_C: np.ndarray, ray_C: np.ndarray, low: np.ndarray | float, high: np.ndarray) -> Interval:
    one_C, two_C = (low - origin_C) / ray_C, (high - origin_C) / ray_C
    return np.minimum(one_C, two_C), np.maximum(one_C, two_C)


def _overlap(one: Interval, two: Interval) -> Interval:
    return np.maximum(one[0], two[0]), np.minimum(one[1], two[1])


def _sphere(origin_3C: Vector, ray_3C: Vector, radius_C: np.ndarray, height_C: np.ndarray) -> Interval:
    (x, y, z), (u, v, w) = origin_3C, ray_3C
    y = y - radius_C
    return _roots(u * u + v * v + w * w, x * u + y * v + z * w, x * x + y * y + z * z - radius_C * radius_C)


def _box(origin_3C: Vector, ray_3C: Vector, radius_C: np.ndarray, height_C: np.ndarray) -> Interval:
    (x, y, z), (u, v, w) = origin_3C, ray_3C
    sides = _overlap(_slab(x, u, -radius_C, radius_C), _slab(z, w, -radius_C, radius_C))
    return _overlap(sides, _slab(y, v, 0.0, height_C))


def _cylinder(origin_3C: Vector, ray_3C: Vector, radius_C: np.ndarray, height_C: np.ndarray) -> Interval:
    (x, y, z), (u, v, w) = origin_3C, ray_3C
    side = _roots(u * u + w * w, x * u + z * w, x * x + z * z - radius_C * radius_C)
    return _overlap(side, _slab(y, v, 0.0, height_C))


def _cone(origin_3C: Vector, ray_3C: Vector, radius_C: np.ndarray, height_C: np.ndarray) -> Interval:
    """Intersect the mantle x² + z² = k² (h - y)², 0 ≤ y ≤ h.

    The base is left out: it is on the ground, where neither the camera nor the light can reach it, and a ray that enters
    through it leaves through the mantle. A single valid root serves as both ends, so the second end is moved by one float.
    """
    (x, y, z), (u, v, w) = origin_3C, ray_3C
    slope_C = radius_C / height_C
    slope_C *= slope_C
    y = height_C - y
    one_C, two_C = _roots(u * u + w * w - slope_C * v * v, x * u + z * w + slope_C * y * v, x * x + z * z - slope_C * y * y)
    y_one_C, y_two_C = y - one_C * v, y - two_C * v  # measured down from the apex
    valid_one_C, valid_two_C = (y_one_C >= 0) & (y_one_C <= height_C), (y_two_C >= 0) & (y_two_C <= height_C)
    enter_C = np.where(valid_one_C, one_C, np.where(valid_two_C, two_C, MISS))
    leave_C = np.where(valid_two_C, two_C, np.where(valid_one_C, one_C, -MISS))
    return enter_C, np.nextafter(leave_C, MISS)


def _sphere_normal(point_3C: Vector, radius_C: np.ndarray, height_C: np.ndarray) -> np.ndarray:
    x, y, z = point_3C
    return _unit(np.stack([x, y - radius_C, z]))


def _box_normal(point_3C: Vector, radius_C: np.ndarray, height_C: np.ndarray) -> np.ndarray:
    """Return the axis of the face whose plane is nearest to the point."""
    x, y, z = point_3C
    half_C = height_C / 2
    centered_3C = np.stack([x, y - half_C, z])
    to_face_3C = np.abs(np.abs(centered_3C) - np.stack([radius_C, half_C, radius_C]))
    face_C = np.argmin(to_face_3C, axis=0)
    return np.where(np.arange(3)[:, None] == face_C, np.sign(centered_3C), 0).astype(np.float32)


def _cylinder_normal(point_3C: Vector, radius_C: np.ndarray, height_C: np.ndarray) -> np.ndarray:
    x, y, z = point_3C
    distance_C = np.sqrt(x * x + z * z)
    cap_C = height_C - y < radius_C - distance_C
    distance_C = np.maximum(distance_C, np.float32(1e-12))
    side_3C = np.stack([x / distance_C, np.zeros_like(x), z / distance_C])
    return np.where(cap_C, np.array([[0], [1], [0]], dtype=np.float32), side_3C)


def _cone_normal(point_3C: Vector, radius_C: np.ndarray, height_C: np.ndarray) -> np.ndarray:
    x, _, z = point_3C
    distance_C = np.maximum(np.sqrt(x * x + z * z), np.float32(1e-6))  # at the tip the normal points up
    return _unit(np.stack([x, distance_C * (radius_C / height_C), z]))


def _unit(vector_3C: np.ndarray) -> np.ndarray:
    x, y, z = vector_3C
    return vector_3C / np.maximum(np.sqrt(x * x + y * y + z * z), np.float32(1e-12))


_INTERSECTIONS = dict(zip(SHAPES, (_sphere, _box, _cylinder, _cone), strict=True))
_NORMALS = dict(zip(SHAPES, (_sphere_normal, _box_normal, _cylinder_normal, _cone_normal), strict=True))
