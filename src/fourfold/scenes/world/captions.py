"""Captions of scenes, a pure function of the scene.

Every object is named with all its attributes, and the wording varies as on the web. There are two styles: `web` is used in
pretraining; `transfer` is an inventory in a form that pretraining does not contain (fine-tuning learns it from few examples).
"""

import random

from fourfold.scenes.world.scene import Scene, SceneObject
from fourfold.scenes.world.vocabulary import NUMBERS

STYLES = ("web", "transfer")
OPENINGS = ("", "", "a photo of ", "a picture of ", "there is ")
BESIDE = {
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
    "front": ("in front of",),
    "behind": ("behind",),
}
DEPTH_WEIGHT = 1.0  # how many times farther in depth than across an object must be to be behind, not beside


def caption(scene: Scene, style: str = "web") -> str:
    """Return the caption of a scene, at most 40 words of lower-case ASCII; raises ValueError for an unknown style."""
    if style not in STYLES:
        raise ValueError(f"Unknown caption style {style!r}. Known: {', '.join(STYLES)}.")
    return _web(scene) if style == "web" else _transfer(scene)


def left_to_right(scene: Scene) -> list[SceneObject]:
    """Return the objects in their order in the image, from left to right."""
    return sorted(scene.objects, key=lambda solid: solid.x / solid.z)


def relation(one: SceneObject, two: SceneObject) -> str:
    """Return where `one` is relative to `two`, as seen from the camera: left, right, front or behind.

    Depth decides only if it clearly exceeds the distance across, so that left and right agree with the image.
    """
    across, along = one.x - two.x, one.z - two.z
    if abs(along) > DEPTH_WEIGHT * abs(across):
        return "behind" if along > 0 else "front"
    return "right" if across > 0 else "left"


def is_clear(one: SceneObject, two: SceneObject) -> bool:
    """Return whether `relation` is unambiguous: far from the border between beside and behind."""
    ratio = abs(one.z - two.z) / max(abs(one.x - two.x), 1e-9) / DEPTH_WEIGHT
    return ratio < 0.8 or ratio > 1.25


def _web(scene: Scene) -> str:
    rng = random.Random(scene.wording)  # noqa: S311  the seed of the scene chooses the words
    solids = left_to_right(scene)
    if rng.random() < 0.25:
        solids.reverse()
    words = rng.choice(OPENINGS) + f"a {solids[0].description}"
    if len(solids) == 1:
        words += _position(solids[0])
    else:
        words += f" {rng.choice(BESIDE[relation(solids[0], solids[1])])} a {solids[1].description}"
    if len(solids) > 2:
        words += f" with a {solids[2].description} {rng.choice(BESIDE[relation(solids[2], solids[1])])} it"
    words += "".join(f" and a {solid.description}" for solid in solids[3:])
    return words + (" on a checkered floor" if scene.floor == "checkered" else "")


def _position(solid: SceneObject) -> str:
    """Return the phrase for the position of a single object in the image."""
    slope = solid.x / solid.z
    if abs(slope) < 0.1:
        return " in the middle"
    return " on the left" if slope < 0 else " on the right"


def _transfer(scene: Scene) -> str:
    solids = left_to_right(scene)
    noun = "object" if len(solids) == 1 else "objects"
    items = [f"{solid.color} {solid.shape}, {solid.size}, {solid.texture}" for solid in solids]
    return f"{NUMBERS[len(solids)]} {noun}: " + "; ".join(items)
