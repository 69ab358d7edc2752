"""Questions about a scene that have exactly one right answer, in the words of `vocabulary.py`."""

from collections import Counter
from dataclasses import dataclass

from fourfold.scenes.world.captions import BESIDE, is_clear, relation
from fourfold.scenes.world.scene import Scene
from fourfold.scenes.world.vocabulary import COLORS, NUMBERS, SHAPES

KINDS = ("color", "shape", "count", "relation")
ANSWERS = (*COLORS, *SHAPES, *NUMBERS[:4])


@dataclass(frozen=True)
class Question:
    """A question, its one-word answer (one of ANSWERS with up to three objects) and its kind (one of KINDS)."""

    text: str
    answer: str
    kind: str


def questions(scene: Scene) -> list[Question]:
    """Return every question of the four kinds that the scene answers without ambiguity, in a fixed order."""
    return [*_colors(scene), *_shapes(scene), *_counts(scene), *_relations(scene)]


def _colors(scene: Scene) -> list[Question]:
    """Ask for the color of what is the only one of its shape, or of its shape and size."""
    found = []
    by_shape = Counter(thing.shape for thing in scene.objects)
    by_size = Counter((thing.size, thing.shape) for thing in scene.objects)
    for thing in scene.objects:
        if by_shape[thing.shape] == 1:
            found.append(Question(f"what colour is the {thing.shape}?", thing.color, "color"))
        elif by_size[thing.size, thing.shape] == 1:
            found.append(Question(f"what colour is the {thing.size} {thing.shape}?", thing.color, "color"))
    return found


def _shapes(scene: Scene) -> list[Question]:
    """Ask for the shape of what is the only one of its color."""
    by_color = Counter(thing.color for thing in scene.objects)
    return [
        Question(f"what shape is the {thing.color} object?", thing.shape, "shape")
        for thing in scene.objects
        if by_color[thing.color] == 1
    ]


def _counts(scene: Scene) -> list[Question]:
    things = scene.objects
    found = [Question("how many objects are there?", NUMBERS[len(things)], "count")]
    for word in ("striped", "plain", "large", "small"):
        number = sum(word in (thing.texture, thing.size) for thing in things)
        found.append(Question(f"how many {word} objects are there?", NUMBERS[number], "count"))
    return found


def _relations(scene: Scene) -> list[Question]:
    """Ask for the shape of the only object that stands on one side of another, where all sides are clear."""
    found = []
    for anchor in scene.objects:
        others = [thing for thing in scene.objects if thing is not anchor]
        if not all(is_clear(thing, anchor) for thing in others):
            continue
        for side, prepositions in BESIDE.items():
            there = [thing for thing in others if relation(thing, anchor) == side]
            if len(there) == 1:
                text = f"what shape is {prepositions[0]} the {anchor.color} {anchor.shape}?"
                found.append(Question(text, there[0].shape, "relation"))
    return found
