"""A scene: a small frozen description that is a function of (seed, split, index); everything else is computed from it."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from fourfold.scenes.world.camera import View
from fourfold.scenes.world.config import SPLITS, ScenesConfig
from fourfold.scenes.world.vocabulary import COLORS, FLOORS, SHAPES, SIZES, TEXTURES
from fourfold.seeds import derive_seed

MARGIN = 0.96  # share of the half image that must contain all objects entirely
ARRANGEMENTS = 40  # attempts before an object becomes small

T = TypeVar("T")
Tone = tuple[float, float, float]  # sRGB, 0-1
Look = tuple[str, str, str, str]  # shape, color, texture, size
SKIES: tuple[tuple[Tone, Tone], ...] = (  # horizon and zenith
    ((0.82, 0.89, 0.95), (0.36, 0.56, 0.86)),  # clear
    ((0.98, 0.84, 0.72), (0.52, 0.50, 0.74)),  # evening
    ((0.86, 0.87, 0.88), (0.64, 0.67, 0.72)),  # overcast
)


@dataclass(frozen=True)
class SceneObject:
    """One upright solid on the ground. Lengths in meters, world frame (see `camera.py`); `yaw` in radians."""

    shape: str
    color: str
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
        return _footprint(self.shape, self.radius)

    @property
    def description(self) -> str:
        """All attributes in English word order: `large red striped sphere`; `plain` is omitted."""
        return " ".join(word for word in (self.size, self.color, self.texture, self.shape) if word != "plain")


@dataclass(frozen=True)
class Scene:
    """Objects, ground, sky and light of one image. Colors are sRGB in 0–1."""

    split: str
    index: int
    objects: tuple[SceneObject, ...]
    floor: str
    floor_tones: tuple[Tone, Tone]  # equal on a plain floor
    floor_yaw: float
    tile: float  # edge of a checker tile in meters
    horizon: tuple[float, float, float]
    zenith: tuple[float, float, float]
    light: tuple[float, float, float]  # unit vector towards the light, world frame
    wording: int  # seed of the choice of words

    @property
    def key(self) -> str:
        """Name of the sample in every shard."""
        return f"{self.split}-{self.index:06d}"


def parse_key(key: str) -> tuple[str, int]:
    """Return (split, index) of a sample's key; raises ValueError when it is not the key of a scene."""
    split, _, index = key.rpartition("-")
    if split not in SPLITS or len(index) != 6 or not index.isdecimal():
        raise ValueError(
            f"{key!r} is not the key of a scene. Expected '<split>-<six digits>' with split one of {', '.join(SPLITS)}."
        )
    return split, int(index)


def scene(seed: int, split: str, index: int, config: ScenesConfig) -> Scene:
    """Draw scene `index` of `split`, a pure function of the arguments.

    Raises ValueError for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}. Known: {', '.join(SPLITS)}.")
    rng = random.Random(derive_seed(seed, "scenes", split, index))  # noqa: S311  ten times faster than NumPy for single draws
    objects = _draw_objects(rng, config)
    floor = _pick(rng, FLOORS)
    horizon, zenith = _draw_sky(rng)
    azimuth, elevation = math.radians(_between(rng, -75, 75)), math.radians(_between(rng, 38, 62))
    light = (math.sin(azimuth) * math.cos(elevation), math.sin(elevation), -math.cos(azimuth) * math.cos(elevation))
    return Scene(
        split=split,
        index=index,
        objects=objects,
        floor=floor,
        floor_tones=_draw_floor_tones(rng, floor),
        floor_yaw=_between(rng, 0, math.pi / 2),
        tile=_between(rng, 0.9, 1.3),
        horizon=horizon,
        zenith=zenith,
        light=light,
        wording=rng.getrandbits(32),
    )


def _between(rng: random.Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _pick(rng: random.Random, options: Sequence[T]) -> T:
    return options[int(rng.random() * len(options))]


def _draw_floor_tones(rng: random.Random, floor: str) -> tuple[Tone, Tone]:
    tone, warmth = _between(rng, 0.56, 0.76), _between(rng, -0.03, 0.03)
    light = (tone + warmth, tone, tone - warmth)
    if floor == "plain":
        return light, light
    contrast = _between(rng, 0.62, 0.74)
    return light, (light[0] * contrast, light[1] * contrast, light[2] * contrast)


def _draw_sky(rng: random.Random) -> tuple[Tone, Tone]:
    """Return the colors at the horizon and at the zenith: a random mixture of a clear, an evening and an overcast sky."""
    weights = [rng.random() ** 2 for _ in SKIES]
    total = sum(weights) + 1e-9

    def mix(end: int) -> Tone:
        red, green, blue = (sum(w * sky[end][c] for w, sky in zip(weights, SKIES, strict=True)) / total for c in range(3))
        return red, green, blue

    return mix(0), mix(1)


def _draw_objects(rng: random.Random, config: ScenesConfig) -> tuple[SceneObject, ...]:
    """Draw appearances, then positions. If the objects do not fit, they become small one by one, then their number falls.

    Color and shape together identify an object in its scene.
    """
    count = config.min_objects + int(rng.random() * (config.max_objects - config.min_objects + 1))
    looks: list[Look] = []
    while len(looks) < count:
        look = (_pick(rng, SHAPES), _pick(rng, COLORS), _pick(rng, TEXTURES), _pick(rng, SIZES))
        if all(look[:2] != other[:2] for other in looks):
            looks.append(look)
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


def _arrange(rng: random.Random, looks: Sequence[Look], config: ScenesConfig) -> list[SceneObject] | None:
    """Try to position all objects; None when they do not fit.

    Objects must be entirely in view and apart on the ground, and none may be occluded too much. Distances are drawn first;
    then the objects share the width of the image, with random gaps and overlaps.
    """
    view, extents = config.camera.view(), []
    for shape, _, _, size in looks:
        radius, height = _proportions(shape, config.large if size == "large" else config.small)
        z, footprint = _between(rng, config.nearest, config.farthest), _footprint(shape, radius)
        if not _fits_vertically(view, z, footprint, height):
            return None
        scale, _ = view.project(1, height / 2, z - 0.5 * footprint)  # half images per meter, an upper bound
        extents.append((z, radius, height, scale, footprint * scale))
    widths = [2 * half * (1 - config.max_occlusion * rng.random()) for *_, half in extents]
    gaps, left = sorted(rng.random() for _ in looks), -MARGIN
    free, before = 2 * MARGIN - sum(widths), 0.0
    if free < 0:
        return None
    placed: dict[int, SceneObject] = {}
    for gap, number in zip(gaps, sorted(range(len(looks)), key=lambda _: rng.random()), strict=True):
        z, radius, height, scale, half = extents[number]
        center = left + gap * free + before + widths[number] / 2
        before += widths[number]
        x = max(half - MARGIN, min(MARGIN - half, center)) / scale
        shape, color, texture, size = looks[number]
        new = SceneObject(shape, color, texture, size, x, z, rng.random() * math.pi / 2, radius, height)
        if half > MARGIN or not _fits(new, list(placed.values()), view, config.max_occlusion):
            return None
        placed[number] = new
    return [placed[number] for number in range(len(looks))]


def _footprint(shape: str, radius: float) -> float:
    return radius * math.sqrt(2) if shape == "box" else radius


def _proportions(shape: str, scale: float) -> tuple[float, float]:
    """Return radius and height in meters, so that shapes of one size appear equally large."""
    return {
        "sphere": (scale, 2 * scale),
        "box": (0.78 * scale, 1.56 * scale),
        "cylinder": (0.76 * scale, 1.9 * scale),
        "cone": (0.98 * scale, 2.1 * scale),
    }[shape]


def _fits_vertically(view: View, z: float, footprint: float, height: float) -> bool:
    """Return whether an object of this height at distance z is entirely inside the image, from bottom to top."""
    foot = view.project(0, 0, z - footprint)[1]
    return foot < MARGIN and min(view.project(0, height, end)[1] for end in (z - footprint, z + footprint)) > -MARGIN


def _fits(new: SceneObject, placed: Sequence[SceneObject], view: View, max_occlusion: float) -> bool:
    """Return whether `new` is apart from all others, and no object occludes too much of another's width."""
    for other in placed:
        if math.hypot(new.x - other.x, new.z - other.z) < (new.footprint + other.footprint) * 1.08:
            return False
        one, two = _span(new, view), _span(other, view)
        hidden = one if new.z > other.z else two
        if min(one[1], two[1]) - max(one[0], two[0]) > max_occlusion * (hidden[1] - hidden[0]):
            return False
    return True


def _span(solid: SceneObject, view: View) -> tuple[float, float]:
    """Return the left and the right end in half images."""
    scale, _ = view.project(1, solid.height / 2, solid.z)
    return (solid.x - solid.footprint) * scale, (solid.x + solid.footprint) * scale
