"""What people would write under a scene's picture: a pure function of the scene.

Every object is named with all its attributes and the wording varies as on the web. Two styles: `web` is what pretraining
sees; `transfer` is an inventory in an order and form that pretraining never sees (fine-tuning learns it from few examples).
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
    """Return the objects in the order in which the picture shows them."""
    return sorted(scene.objects, key=lambda thing: thing.x / thing.z)


def relation(one: SceneObject, two: SceneObject) -> str:
    """Return where `one` is, seen from the camera, relative to `two`: left, right, front or behind.

    Depth decides only where it clearly outweighs the distance across; so the picture never shows left and right swapped.
    """
    across, along = one.x - two.x, one.z - two.z
    if abs(along) > DEPTH_WEIGHT * abs(across):
        return "behind" if along > 0 else "front"
    return "right" if across > 0 else "left"


def is_clear(one: SceneObject, two: SceneObject) -> bool:
    """Return whether a person would not hesitate over `relation`: far from the line between beside and behind."""
    ratio = abs(one.z - two.z) / max(abs(one.x - two.x), 1e-9) / DEPTH_WEIGHT
    return ratio < 0.8 or ratio > 1.25


def _web(scene: Scene) -> str:
    rng = random.Random(scene.wording)  # noqa: S311  the choice of words, from the scene's own seed
    things = left_to_right(scene)
    if rng.random() < 0.25:
        things.reverse()
    words = rng.choice(OPENINGS) + f"a {things[0].description}"
    if len(things) == 1:
        words += _place(things[0])
    else:
        words += f" {rng.choice(BESIDE[relation(things[0], things[1])])} a {things[1].description}"
    if len(things) > 2:
        words += f" with a {things[2].description} {rng.choice(BESIDE[relation(things[2], things[1])])} it"
    words += "".join(f" and a {thing.description}" for thing in things[3:])
    return words + (" on a checkered floor" if scene.floor == "checkered" else "")


def _place(thing: SceneObject) -> str:
    """Return the place of a lone object in the picture."""
    slope = thing.x / thing.z
    if abs(slope) < 0.1:
        return " in the middle"
    return " on the left" if slope < 0 else " on the right"


def _transfer(scene: Scene) -> str:
    things = left_to_right(scene)
    noun = "object" if len(things) == 1 else "objects"
    items = [f"{thing.color} {thing.shape}, {thing.size}, {thing.texture}" for thing in things]
    return f"{NUMBERS[len(things)]} {noun}: " + "; ".join(items)
