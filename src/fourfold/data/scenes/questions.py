"""Questions about a scene that have exactly one right answer, in the words of `vocabulary.py`."""

from collections import Counter
from dataclasses import dataclass
from itertools import permutations

from fourfold.data.scenes.captions import BESIDE, OPPOSITE, relation
from fourfold.data.scenes.scene import Scene, SceneObject
from fourfold.data.scenes.vocabulary import COLOURS, NUMBERS, SHAPES

KINDS = ("colour", "shape", "count", "relation")
ANSWERS = (*COLOURS, *SHAPES, *NUMBERS[:4], "yes", "no")


@dataclass(frozen=True)
class Question:
    """A question, its one-word answer (one of ANSWERS with up to three objects) and its kind (one of KINDS)."""

    text: str
    answer: str
    kind: str


def questions(scene: Scene) -> list[Question]:
    """Return every question of the four kinds that the scene answers without ambiguity, in a fixed order."""
    return [*_colours(scene), *_shapes(scene), *_counts(scene), *_relations(scene)]


def _colours(scene: Scene) -> list[Question]:
    """Ask for the colour of what is the only one of its shape, or of its shape and size."""
    found = []
    by_shape = Counter(thing.shape for thing in scene.objects)
    by_size = Counter((thing.size, thing.shape) for thing in scene.objects)
    for thing in scene.objects:
        if by_shape[thing.shape] == 1:
            found.append(Question(f"what colour is the {thing.shape}?", thing.colour, "colour"))
        elif by_size[thing.size, thing.shape] == 1:
            found.append(Question(f"what colour is the {thing.size} {thing.shape}?", thing.colour, "colour"))
    return found


def _shapes(scene: Scene) -> list[Question]:
    """Ask for the shape of what is the only one of its colour."""
    by_colour = Counter(thing.colour for thing in scene.objects)
    return [
        Question(f"what shape is the {thing.colour} object?", thing.shape, "shape")
        for thing in scene.objects
        if by_colour[thing.colour] == 1
    ]


def _counts(scene: Scene) -> list[Question]:
    things = scene.objects
    found = [Question("how many objects are there?", NUMBERS[len(things)], "count")]
    for word in ("striped", "plain", "large", "small"):
        number = sum(word in (thing.texture, thing.size) for thing in things)
        found.append(Question(f"how many {word} objects are there?", NUMBERS[number], "count"))
    return found


def _relations(scene: Scene) -> list[Question]:
    """Ask of each ordered pair whether its relation holds, or the opposite one."""
    found = []
    for one, two in permutations(scene.objects, 2):
        where = relation(one, two)
        names = f"is the {_name(one)} {{}} the {_name(two)}?"
        found.append(Question(names.format(BESIDE[where][0]), "yes", "relation"))
        found.append(Question(names.format(BESIDE[OPPOSITE[where]][0]), "no", "relation"))
    return found


def _name(thing: SceneObject) -> str:
    return f"{thing.colour} {thing.shape}"
