"""A scene is a small frozen description, drawn from (seed, split, index) alone; everything else is computed from it."""

import math
from dataclasses import dataclass

import numpy as np

from fourfold.data.scenes.config import SPLITS, ScenesConfig
from fourfold.data.scenes.vocabulary import COLOURS, FLOORS, SHAPES, SIZES, TEXTURES
from fourfold.seeds import numpy_generator

MARGIN = 0.96  # share of the half image in which whole objects must lie
ARRANGEMENTS = 40  # full restarts before sizes shrink
Tone = tuple[float, float, float]  # sRGB, 0-1
PLACES = 12  # tries per object in one arrangement


@dataclass(frozen=True)
class SceneObject:
    """One upright solid on the ground. Lengths in metres, world frame (see `camera.py`); `yaw` in radians."""

    shape: str
    colour: str
    texture: str
    size: str
    x: float
    z: float
    yaw: float
    radius: float  # of sphere, cylinder and the base of a cone; half the edge of a box
    height: float

    @property
    def footprint(self) -> float:
        """Radius of the smallest upright cylinder around the object."""
        return self.radius * math.sqrt(2) if self.shape == "box" else self.radius

    @property
    def description(self) -> str:
        """All attributes in the order of English: `large red striped sphere`; plain goes without saying."""
        return " ".join(word for word in (self.size, self.colour, self.texture, self.shape) if word != "plain")


@dataclass(frozen=True)
class Scene:
    """Objects, ground, sky and light of one image. Colours are sRGB in 0–1."""

    split: str
    index: int
    objects: tuple[SceneObject, ...]
    floor: str
    floor_tones: tuple[Tone, Tone]  # the same twice on a plain floor
    floor_yaw: float
    tile: float  # edge of a checker tile in metres
    horizon: tuple[float, float, float]
    zenith: tuple[float, float, float]
    light: tuple[float, float, float]  # unit vector towards the light, world frame
    wording: int  # seed of the choice of words

    @property
    def key(self) -> str:
        """Name of the sample in every shard."""
        return f"{self.split}-{self.index:06d}"


def parse_key(key: str) -> tuple[str, int]:
    """Return (split, index) of a sample's key; raises ValueError when it names no scene."""
    split, _, index = key.rpartition("-")
    if split not in SPLITS or len(index) != 6 or not index.isdecimal():
        raise ValueError(f"{key!r} names no scene. Expected '<split>-<six digits>' with split one of {', '.join(SPLITS)}.")
    return split, int(index)


def scene(seed: int, split: str, index: int, config: ScenesConfig) -> Scene:
    """Draw scene `index` of `split`: a pure function of its arguments, whatever was drawn before.

    Raises ValueError for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}. Known: {', '.join(SPLITS)}.")
    rng = numpy_generator(seed, "scenes", split, index)
    objects = _draw_objects(rng, config)
    floor = FLOORS[rng.integers(len(FLOORS))]
    horizon, zenith = _draw_sky(rng)
    azimuth, elevation = math.radians(rng.uniform(-75, 75)), math.radians(rng.uniform(38, 62))
    light = (math.sin(azimuth) * math.cos(elevation), math.sin(elevation), -math.cos(azimuth) * math.cos(elevation))
    return Scene(
        split=split,
        index=index,
        objects=objects,
        floor=floor,
        floor_tones=_draw_floor_tones(rng, floor),
        floor_yaw=rng.uniform(0, math.pi / 2),
        tile=rng.uniform(0.9, 1.3),
        horizon=horizon,
        zenith=zenith,
        light=light,
        wording=int(rng.integers(2**32)),
    )


def _draw_floor_tones(rng: np.random.Generator, floor: str) -> tuple[Tone, Tone]:
    tone, warmth = rng.uniform(0.56, 0.76), rng.uniform(-0.03, 0.03)
    light = (tone + warmth, tone, tone - warmth)
    if floor == "plain":
        return light, light
    contrast = rng.uniform(0.62, 0.74)
    return light, (light[0] * contrast, light[1] * contrast, light[2] * contrast)


def _draw_sky(rng: np.random.Generator) -> tuple[Tone, Tone]:
    """Return the colours at the horizon and at the zenith: anything between a clear, an evening and an overcast sky."""
    clear, evening, overcast = ((0.82, 0.89, 0.95), (0.36, 0.56, 0.86)), ((0.98, 0.84, 0.72), (0.52, 0.50, 0.74)), \
        ((0.86, 0.87, 0.88), (0.64, 0.67, 0.72))  # fmt: skip
    weights = rng.dirichlet((0.7, 0.7, 0.7))
    mixed = [[float(sum(w * sky[end][c] for w, sky in zip(weights, (clear, evening, overcast), strict=True))) for c in range(3)]
             for end in range(2)]  # fmt: skip
    return tuple(mixed[0]), tuple(mixed[1])  # type: ignore[return-value]


def _draw_objects(rng: np.random.Generator, config: ScenesConfig) -> tuple[SceneObject, ...]:
    """Draw looks, then places; objects that fit nowhere together become small one after the other, then fewer."""
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    looks: list[tuple[str, str, str, str]] = []
    while len(looks) < count:
        shape, colour = SHAPES[rng.integers(len(SHAPES))], COLOURS[rng.integers(len(COLOURS))]
        texture, size = TEXTURES[rng.integers(len(TEXTURES))], SIZES[rng.integers(len(SIZES))]
        if all((shape, colour) != look[:2] for look in looks):  # so that colour and shape always tell objects apart
            looks.append((shape, colour, texture, size))
    while True:
        for _ in range(ARRANGEMENTS):
            if placed := _arrange(rng, looks, config):
                return tuple(placed)
        large = [number for number, look in enumerate(looks) if look[3] == "large"]
        if large:
            looks[large[-1]] = (*looks[large[-1]][:3], "small")
        elif len(looks) > 1:
            looks.pop()
        else:
            raise ValueError("No object fits into the view. Make scenes.small smaller or move nearest and farthest apart.")


def _arrange(
    rng: np.random.Generator, looks: list[tuple[str, str, str, str]], config: ScenesConfig
) -> list[SceneObject] | None:
    """Try to place all objects: whole in view, apart on the ground, none hidden too much; None when one finds no place."""
    placed: list[SceneObject] = []
    spans: list[tuple[float, float, float]] = []
    for shape, colour, texture, size in looks:
        radius, height = _proportions(shape, config.large if size == "large" else config.small)
        for _ in range(PLACES):
            z = config.nearest + (config.farthest - config.nearest) * rng.random()
            x = (2 * rng.random() - 1) * 0.5 * z * math.tan(math.radians(config.camera.fov) / 2) * 2
            new = SceneObject(shape, colour, texture, size, x, z, rng.random() * math.pi / 2, radius, height)
            span = _span_in_view(new, config)
            if span and _fits(new, span, placed, spans, config.max_occlusion):
                placed.append(new)
                spans.append(span)
                break
        else:
            return None
    return placed


def _proportions(shape: str, scale: float) -> tuple[float, float]:
    """Return radius and height in metres, so that shapes of one size look equally large."""
    return {
        "sphere": (scale, 2 * scale),
        "box": (0.78 * scale, 1.56 * scale),
        "cylinder": (0.76 * scale, 1.9 * scale),
        "cone": (0.98 * scale, 2.1 * scale),
    }[shape]


def _span_in_view(new: SceneObject, config: ScenesConfig) -> tuple[float, float, float] | None:
    """Return (left, right, distance) in half images, or None when a part of the object lies outside the view."""
    near, far_side = new.z - new.footprint, new.z + new.footprint
    left, _, _ = config.camera.project(new.x - new.footprint, new.height / 2, new.z)
    right, _, _ = config.camera.project(new.x + new.footprint, new.height / 2, new.z)
    bottom = config.camera.project(new.x, 0.0, near)[1]
    top = min(config.camera.project(new.x, new.height, z)[1] for z in (near, far_side))
    inside = left > -MARGIN and right < MARGIN and bottom < MARGIN and top > -MARGIN
    return (left, right, new.z) if inside else None


def _fits(
    new: SceneObject,
    span: tuple[float, float, float],
    placed: list[SceneObject],
    spans: list[tuple[float, float, float]],
    max_occlusion: float,
) -> bool:
    for other, other_span in zip(placed, spans, strict=True):
        if math.hypot(new.x - other.x, new.z - other.z) < (new.footprint + other.footprint) * 1.08:
            return False
        overlap = min(span[1], other_span[1]) - max(span[0], other_span[0])
        hidden = span if span[2] > other_span[2] else other_span
        if overlap > max_occlusion * (hidden[1] - hidden[0]):
            return False
    return True
