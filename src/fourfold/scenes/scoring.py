"""What a caption says, and how much of it is true: objects read back from text by the closed vocabulary of the scenes."""

import re
from collections.abc import Sequence

from fourfold.metrics.statistics import Statistic, f1, mean
from fourfold.scenes.world.vocabulary import COLORS, SHAPES, SIZES, TEXTURES

WORD = re.compile(r"[a-z]+")
ITEM_ENDS = re.compile(r"[;:]")
SINGULAR = {plural: shape for shape in SHAPES for plural in (shape, f"{shape}s", f"{shape}es")}
UNSAID_TEXTURE = "plain"  # goes without saying

Pair = tuple[str | None, str]  # color, shape
Description = tuple[str | None, str | None, str, str]  # size, color, texture, shape


def described_objects(text: str) -> list[Description]:
    """Return the objects that a text names, in order of first mention, each once per (color, shape).

    A shape takes the attributes said since the shape before it: "a large red striped sphere left of a box" gives
    ("large", "red", "striped", "sphere") and (None, None, "plain", "box"). In an item of a list ("two objects: red sphere,
    large, plain; ...") what follows a lone shape belongs to it too. In the scenes color and shape tell objects apart, so a
    second mention adds nothing; one without a color adds nothing either once its shape has been named.
    """
    objects: dict[Pair, Description] = {}
    for item in ITEM_ENDS.split(text.lower()):
        for found in _in_item(WORD.findall(item)):
            _, color, _, shape = found
            if color is not None or all(shape != known for _, known in objects):
                objects.setdefault((color, shape), found)
    return list(objects.values())


def _in_item(words: list[str]) -> list[Description]:
    places = [place for place, word in enumerate(words) if word in SINGULAR]
    ends = [len(words)] if len(places) == 1 else [place + 1 for place in places]
    starts = [0, *ends]
    return [_description(words[start:end]) for start, end in zip(starts, ends, strict=False) if places]


def _description(words: list[str]) -> Description:
    """Return what some words say of the one shape among them; of two colors the last one before it counts."""
    place = next(i for i, word in enumerate(words) if word in SINGULAR)
    near = words[place::-1] + words[place + 1 :]  # nearest first, before it before after it

    def first(known: tuple[str, ...]) -> str | None:
        return next((word for word in near if word in known), None)

    return first(SIZES), first(COLORS), first(TEXTURES) or UNSAID_TEXTURE, SINGULAR[words[place]]


def described_pairs(text: str) -> set[Pair]:
    """Return the (color, shape) pairs that a text names."""
    return {(color, shape) for _, color, _, shape in described_objects(text)}


def described_shapes(text: str) -> set[str]:
    """Return the shapes that a text names."""
    return {shape for *_, shape in described_objects(text)}


def caption_statistics(predicted: Sequence[str], truth: Sequence[str]) -> dict[str, Statistic]:
    """Return how well texts describe what other texts describe.

    `exact`: the same (color, shape) pairs, none missing and none too many · `exact_objects`: the same objects with size and
    texture as well · `pair_f1`: micro-F1 over pairs · `count`: as many objects · `verbatim`: the same words.
    """
    ours, theirs = ([described_objects(text) for text in texts] for texts in (predicted, truth))
    samples = list(zip(ours, theirs, strict=True))
    return {
        "exact": mean([_pairs(p) == _pairs(t) for p, t in samples]),
        "exact_objects": mean([set(p) == set(t) for p, t in samples]),
        "pair_f1": set_f1([_pairs(p) for p in ours], [_pairs(t) for t in theirs]),
        "count": mean([len(p) == len(t) for p, t in samples]),
        "verbatim": mean([WORD.findall(p.lower()) == WORD.findall(t.lower()) for p, t in zip(predicted, truth, strict=True)]),
    }


def set_f1(predicted: Sequence[set], truth: Sequence[set]) -> Statistic:
    """Return micro-averaged F1 of one set a sample."""
    hits = [len(p & t) for p, t in zip(predicted, truth, strict=True)]
    return f1(hits, [len(p) for p in predicted], [len(t) for t in truth])


def _pairs(objects: Sequence[Description]) -> set[Pair]:
    return {(color, shape) for _, color, _, shape in objects}
