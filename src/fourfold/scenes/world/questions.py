"""Questions about a scene that have exactly one correct answer, in the words of `vocabulary.py`."""

from collections import Counter
from dataclasses import dataclass

from fourfold.scenes.world.captions import BESIDE, is_clear, relation
from fourfold.scenes.world.scene import Scene
from fourfold.scenes.world.vocabulary import COLORS, NUMBERS, SHAPES

KINDS = ("color", "shape", "count", "relation")
ANSWERS = (*COLORS, *SHAPES, *NUMBERS[:4])


@dataclass(frozen=True)
class Question:
    """A question, its one-word answer (one of ANSWERS, for scenes of up to three objects) and its kind (one of KINDS)."""

    text: str
    answer: str
    kind: str


def questions(scene: Scene) -> list[Question]:
    """Return every question of the four kinds that the scene answers without ambiguity, in a fixed order."""
    return [*_colors(scene), *_shapes(scene), *_counts(scene), *_relations(scene)]


def _colors(scene: Scene) -> list[Question]:
    """Return questions for the color of an object that is the only one of its shape, or of its shape and size."""
    asked = []
    by_shape = Counter(solid.shape for solid in scene.objects)
    by_size = Counter((solid.size, solid.shape) for solid in scene.objects)
    for solid in scene.objects:
        if by_shape[solid.shape] == 1:
            asked.append(Question(f"what color is the {solid.shape}?", solid.color, "color"))
        elif by_size[solid.size, solid.shape] == 1:
            asked.append(Question(f"what color is the {solid.size} {solid.shape}?", solid.color, "color"))
    return asked


def _shapes(scene: Scene) -> list[Question]:
    """Return questions for the shape of an object that is the only one of its color."""
    by_color = Counter(solid.color for solid in scene.objects)
    return [
        Question(f"what shape is the {solid.color} object?", solid.shape, "shape")
        for solid in scene.objects
        if by_color[solid.color] == 1
    ]


def _counts(scene: Scene) -> list[Question]:
    solids = scene.objects
    asked = [Question("how many objects are there?", NUMBERS[len(solids)], "count")]
    for word in ("striped", "plain", "large", "small"):
        number = sum(word in (solid.texture, solid.size) for solid in solids)
        asked.append(Question(f"how many {word} objects are there?", NUMBERS[number], "count"))
    return asked


def _relations(scene: Scene) -> list[Question]:
    """Return questions for the shape of the only object on one side of another, where all relations are unambiguous."""
    asked = []
    for anchor in scene.objects:
        others = [solid for solid in scene.objects if solid is not anchor]
        if not all(is_clear(solid, anchor) for solid in others):
            continue
        for side, prepositions in BESIDE.items():
            there = [solid for solid in others if relation(solid, anchor) == side]
            if len(there) == 1:
                text = f"what shape is {prepositions[0]} the {anchor.color} {anchor.shape}?"
                asked.append(Question(text, there[0].shape, "relation"))
    return asked
