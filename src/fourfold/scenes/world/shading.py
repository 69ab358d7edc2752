"""Shading of objects: light from the sky, sun with hard shadows, and a highlight. Linear light, float32.

Shapes as in `tracing.py`; Q pairs of objects of one scene.
"""

import numpy as np

from fourfold.scenes.world.backdrop import FILL, SUN
from fourfold.scenes.world.tracing import BLUE, BOUND, HEIGHT, RED, STRIPES, Hits, SceneBatch, X, Z, blocked

GLOSS = np.float32(0.16)  # strength of the highlight
STRIPE_TONE = np.float32(0.86)  # linear; stripes in the object's color alternate with this near-white
NUM_BANDS = np.float32(5)  # stripes over the height of an object; the first and the last have its color


def shade_objects(batch: SceneBatch, hits: Hits, light_3S: np.ndarray, shades_Q2: np.ndarray) -> np.ndarray:
    """Return the colors (3, H) of hit points; `shades_Q2` are the pairs (caster, receiver) of `shading_pairs`."""
    light_3H = light_3S[:, batch.scene_M[hits.object_H]]
    facing_H = np.maximum(_dot(hits.normal_3H, light_3H), 0)
    _shadow(facing_H, batch, hits, light_3H, shades_Q2)
    half_3H = light_3H - hits.direction_3H / np.sqrt(_dot(hits.direction_3H, hits.direction_3H))
    shine_H = np.maximum(_dot(hits.normal_3H, half_3H), 0) / np.sqrt(_dot(half_3H, half_3H))
    for _ in range(5):  # to the power of 32 (Blinn-Phong)
        shine_H = shine_H * shine_H
    received_H = FILL * (np.float32(0.75) + np.float32(0.35) * hits.normal_3H[1]) + SUN * facing_H
    return _paint(batch, hits) * received_H + GLOSS * shine_H * (facing_H > 0)


def shading_pairs(batch: SceneBatch, light_3S: np.ndarray) -> np.ndarray:
    """Return (Q, 2): pairs (caster, receiver) of objects whose bounding spheres are aligned with the light."""
    pairs = []
    slots = range(len(batch.object_KS))
    for caster_S, receiver_S in ((batch.object_KS[i], batch.object_KS[j]) for i in slots for j in slots if i != j):
        both = np.flatnonzero((caster_S >= 0) & (receiver_S >= 0))
        caster, receiver = caster_S[both], receiver_S[both]
        one_FQ, two_FQ, light_3Q = batch.features_FM[:, caster], batch.features_FM[:, receiver], light_3S[:, both]
        offset_3Q = np.stack([one_FQ[X] - two_FQ[X], (one_FQ[HEIGHT] - two_FQ[HEIGHT]) / 2, one_FQ[Z] - two_FQ[Z]])
        along_Q, reach_Q = _dot(offset_3Q, light_3Q), (one_FQ[BOUND] + two_FQ[BOUND]) * np.float32(1.01)
        inside = (_dot(offset_3Q, offset_3Q) - along_Q * along_Q < reach_Q * reach_Q) & (along_Q > -reach_Q)
        pairs.append(np.stack([caster[inside], receiver[inside]], axis=1))
    return np.concatenate(pairs) if pairs else np.zeros((0, 2), dtype=np.int64)


def _shadow(facing_H: np.ndarray, batch: SceneBatch, hits: Hits, light_3H: np.ndarray, shades_Q2: np.ndarray) -> None:
    """Set `facing_H` to zero in place where another object blocks the light."""
    if not len(shades_Q2):
        return
    casters_M: list[list[int]] = [[] for _ in batch.slot_M]
    for caster, receiver in shades_Q2:
        casters_M[receiver].append(caster)
    for turn in range(max(map(len, casters_M))):
        caster_M = np.array([casters[turn] if turn < len(casters) else -1 for casters in casters_M])
        caster_H = caster_M[hits.object_H]
        lit = np.flatnonzero((caster_H >= 0) & (facing_H > 0))
        dark = blocked(batch, hits.point_3H[:, lit], light_3H[:, lit], caster_H[lit])
        facing_H[lit[dark]] = 0


def _paint(batch: SceneBatch, hits: Hits) -> np.ndarray:
    """Return (3, H): the object's color, or near-white on the second and fourth of five horizontal bands."""
    height_H = batch.features_FM[HEIGHT][hits.object_H]
    band_H = np.floor(hits.point_3H[1] / height_H * NUM_BANDS)
    white_H = (batch.features_FM[STRIPES][hits.object_H] > 0) & ((band_H == 1) | (band_H == 3))
    return np.where(white_H, STRIPE_TONE, batch.features_FM[RED : BLUE + 1, hits.object_H])


def _dot(one_3N: np.ndarray, two_3N: np.ndarray) -> np.ndarray:
    return one_3N[0] * two_3N[0] + one_3N[1] * two_3N[1] + one_3N[2] * two_3N[2]
