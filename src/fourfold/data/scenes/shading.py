"""The colour of a block of camera rays: sky, ground with haze and shadows, lit objects. Linear light, float32.

Shapes as in `tracing.py`; G facts per scene. As there, only + - * / sqrt and comparisons touch the pixels.
"""

from collections.abc import Sequence

import numpy as np

from fourfold.data.scenes.scene import Scene
from fourfold.data.scenes.tracing import (
    BLUE,
    GREEN,
    HEIGHT,
    RED,
    STRIPES,
    Hits,
    nearest,
    shadowed,
    take,
    take_all,
)

LIGHT = slice(0, 3)
TONES = (slice(3, 6), slice(6, 9))
COS, SIN, TILE = 9, 10, 11
HORIZON, ZENITH = slice(12, 15), slice(15, 18)

SUN, FILL, GLOSS = np.float32(0.72), np.float32(0.36), np.float32(0.16)  # direct light, sky light, highlight
HAZE = np.float32(0.6)  # share of the horizon's colour in the ground at the far plane
STRIPE_TONE = np.float32(0.86)  # linear; stripes of the object's colour alternate with near-white
NUM_BANDS = np.float32(5)  # stripes over the height of an object, first and last in its colour


def scene_facts(scenes: Sequence[Scene]) -> np.ndarray:
    """Return (G, S) float32: light, floor and sky of each scene, colours squared from sRGB to about linear."""
    rows = [
        (
            *s.light,
            *(v * v for tone in s.floor_tones for v in tone),
            *(np.cos(s.floor_yaw) / s.tile, np.sin(s.floor_yaw) / s.tile, s.tile),
            *(v * v for colour in (s.horizon, s.zenith) for v in colour),
        )
        for s in scenes
    ]
    return np.ascontiguousarray(np.array(rows, dtype=np.float32).T)


def shade(
    origin: Sequence[np.ndarray],
    ray: Sequence[np.ndarray],
    looks_GAB: np.ndarray,
    facts_KFAB: np.ndarray,
    far: float,
) -> tuple[np.ndarray, Hits]:
    """Return linear colours (3, A, B) and the object hits of camera rays whose z in the camera frame is 1."""
    shape_AB = np.broadcast_shapes(ray[0].shape, looks_GAB[0].shape)
    hits = nearest(origin, ray, facts_KFAB, shape_AB)
    colour_3AB = _background(origin, ray, looks_GAB, facts_KFAB, far, hits.slot_AB < 0)
    a, b = hits.a_H, hits.b_H
    colour_3AB[:, a, b] = _objects(hits, ray, looks_GAB, facts_KFAB)
    return colour_3AB, hits


def ground_depth(origin: Sequence[np.ndarray], ray: Sequence[np.ndarray], far: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the depth of the background (`far` for the sky) and whether it is ground; shaped as the rays."""
    with np.errstate(divide="ignore"):
        depth = -origin[1] / ray[1]
    is_ground = (ray[1] < 0) & (depth < far)
    return np.where(is_ground, depth, np.float32(far)), is_ground


def _background(
    origin: Sequence[np.ndarray],
    ray: Sequence[np.ndarray],
    looks_GAB: np.ndarray,
    facts_KFAB: np.ndarray,
    far: float,
    open_AB: np.ndarray,
) -> np.ndarray:
    depth, is_ground = ground_depth(origin, ray, far)
    x, z = ray[0] * depth, ray[2] * depth
    tile_x = np.floor(x * looks_GAB[COS] - z * looks_GAB[SIN])
    tile_z = np.floor(x * looks_GAB[SIN] + z * looks_GAB[COS])
    both = (tile_x + tile_z) * np.float32(0.5)
    odd = both != np.floor(both)
    in_sun = is_ground & open_AB
    point = (x, np.zeros_like(x), z)
    shadow_AB = shadowed(point, looks_GAB[LIGHT], facts_KFAB, odd.shape, [in_sun] * len(facts_KFAB))
    received = FILL + SUN * np.where(shadow_AB, np.float32(0), looks_GAB[1])
    haze = HAZE * (depth / np.float32(far)) * (depth / np.float32(far))
    up = np.clip((ray[1] + np.float32(0.2)) * np.float32(2.6), 0, 1)
    colours = []
    for channel in range(3):
        horizon, zenith = looks_GAB[HORIZON][channel], looks_GAB[ZENITH][channel]
        ground = np.where(odd, looks_GAB[TONES[1]][channel], looks_GAB[TONES[0]][channel]) * received
        colours.append(np.where(is_ground, ground + haze * (horizon - ground), horizon + up * (zenith - horizon)))
    return np.stack(colours)


def _objects(hits: Hits, ray: Sequence[np.ndarray], looks_GAB: np.ndarray, facts_KFAB: np.ndarray) -> np.ndarray:
    """Return colours (3, H): sky light from above, hard-shadowed sun, a highlight."""
    a, b = hits.a_H, hits.b_H
    light_3H = take_all(looks_GAB[LIGHT], a, b)
    ray_3H = np.stack([take(v, a, b) for v in ray])
    normal_3H = hits.normal_3H
    facing_H = np.maximum(_dot(normal_3H, light_3H), 0)
    facing_H *= ~_object_shadows(hits, light_3H, ray_3H, facts_KFAB, facing_H > 0)
    middle_3H = light_3H - ray_3H / np.sqrt(_dot(ray_3H, ray_3H))
    shine_H = np.maximum(_dot(normal_3H, middle_3H), 0) / np.sqrt(_dot(middle_3H, middle_3H))
    for _ in range(5):  # to the power of 32
        shine_H = shine_H * shine_H
    highlight_H = GLOSS * shine_H * (facing_H > 0)
    received_H = FILL * (np.float32(0.75) + np.float32(0.35) * normal_3H[1]) + SUN * facing_H
    band_H = np.floor(hits.local_3H[1] / hits.facts_FH[HEIGHT] * NUM_BANDS)
    light_band_H = (hits.facts_FH[STRIPES] > 0) & ((band_H == 1) | (band_H == 3))
    paint_3H = np.where(light_band_H, STRIPE_TONE, hits.facts_FH[[RED, GREEN, BLUE]])
    return paint_3H * received_H + highlight_H


def _object_shadows(
    hits: Hits, light_3H: np.ndarray, ray_3H: np.ndarray, facts_KFAB: np.ndarray, facing_H: np.ndarray
) -> np.ndarray:
    """Return (H,) bool: does another object of the scene stand between the hit point and the light?"""
    if len(facts_KFAB) == 1 or not facing_H.any():
        return np.zeros_like(facing_H)
    return _shadow_of_points(hits, light_3H, ray_3H, facts_KFAB, facing_H)


def _shadow_of_points(
    hits: Hits, light_3H: np.ndarray, ray_3H: np.ndarray, facts_KFAB: np.ndarray, facing_H: np.ndarray
) -> np.ndarray:
    facts_KF1H = take_all(facts_KFAB, hits.a_H, hits.b_H)[:, :, None]
    own_H = hits.slot_AB[hits.a_H, hits.b_H]
    keep = [(facing_H & (own_H != slot))[None] for slot in range(len(facts_KFAB))]
    point = [v[None] for v in hits.point_3H]
    return shadowed(point, [v[None] for v in light_3H], facts_KF1H, (1, len(own_H)), keep)[0]


def _dot(one_3H: np.ndarray, two_3H: np.ndarray) -> np.ndarray:
    return one_3H[0] * two_3H[0] + one_3H[1] * two_3H[1] + one_3H[2] * two_3H[2]
