"""Score captions by their content: the objects are read back from the text by the closed vocabulary of the scenes."""

# N samples

import re
from collections.abc import Sequence
from typing import Any

from fourfold.metrics.metric import Metric
from fourfold.metrics.statistics import Statistic, f1, mean
from fourfold.scenes.world.vocabulary import COLORS, SHAPES, SIZES, TEXTURES

WORD = re.compile(r"[a-z]+")
ITEM_ENDS = re.compile(r"[;:]")
SINGULAR = {plural: shape for shape in SHAPES for plural in (shape, f"{shape}s", f"{shape}es")}
DEFAULT_TEXTURE = "plain"  # captions do not mention it

Pair = tuple[str | None, str]  # color, shape
Description = tuple[str | None, str | None, str, str]  # size, color, texture, shape

CAPTION_METRICS = (
    Metric("pair_f1", "pair F1", "F1 over (color, shape) pairs"),
    Metric("exact", "exact", "captions with exactly the right (color, shape) pairs"),
    Metric("exact_objects", "exact with size, texture", "captions whose objects are right in every attribute"),
    Metric("count", "count", "captions with the right number of objects"),
    Metric("verbatim", "verbatim", "captions that are equal to the truth word by word"),
)


def described_objects(text: str) -> list[Description]:
    """Return the objects that a text names, in order of first mention, each once per (color, shape).

    A shape takes the attributes between it and the shape before it: "a large red striped sphere left of a box" gives
    ("large", "red", "striped", "sphere") and (None, None, "plain", "box"). In an item of a list ("two objects: red sphere,
    large, plain; ...") the words after a lone shape belong to it too. Color and shape identify an object of a scene, so a
    second mention adds nothing, and neither does a mention without a color once its shape has been named.
    """
    objects: dict[Pair, Description] = {}
    for item in ITEM_ENDS.split(text.lower()):
        for description in _objects_of_item(WORD.findall(item)):
            _, color, _, shape = description
            if color is not None or all(shape != named for _, named in objects):
                objects.setdefault((color, shape), description)
    return list(objects.values())


def _objects_of_item(words: list[str]) -> list[Description]:
    shapes = [index for index, word in enumerate(words) if word in SINGULAR]
    ends = [len(words)] if len(shapes) == 1 else [index + 1 for index in shapes]
    starts = [0, *ends]
    return [_description(words[start:end]) for start, end in zip(starts, ends, strict=False) if shapes]


def _description(words: list[str]) -> Description:
    """Return the description of the one shape among some words; of two colors the last one before the shape counts."""
    shape = next(index for index, word in enumerate(words) if word in SINGULAR)
    nearest_first = words[shape::-1] + words[shape + 1 :]  # words before the shape come before words after it

    def first(vocabulary: tuple[str, ...]) -> str | None:
        return next((word for word in nearest_first if word in vocabulary), None)

    return first(SIZES), first(COLORS), first(TEXTURES) or DEFAULT_TEXTURE, SINGULAR[words[shape]]


def described_pairs(text: str) -> set[Pair]:
    """Return the (color, shape) pairs that a text names."""
    return {(color, shape) for _, color, _, shape in described_objects(text)}


def described_shapes(text: str) -> set[str]:
    """Return the shapes that a text names."""
    return {shape for *_, shape in described_objects(text)}


def caption_statistics(predicted: Sequence[str], truth: Sequence[str]) -> dict[str, Statistic]:
    """Return the metrics of `CAPTION_METRICS`: whether texts describe the same objects as the true texts.

    `exact` compares (color, shape) pairs, `exact_objects` also size and texture, `pair_f1` is the micro-averaged F1 over
    pairs, `count` compares the number of objects and `verbatim` the words. Samples where neither text names an object (or
    has a word, for `verbatim`) do not count, e.g. captions of photographs.
    """
    ours, theirs = ([described_objects(text) for text in texts] for texts in (predicted, truth))
    samples = list(zip(ours, theirs, strict=True))
    words = [(WORD.findall(p.lower()), WORD.findall(t.lower())) for p, t in zip(predicted, truth, strict=True)]
    named = [bool(p or t) for p, t in samples]
    return {
        "exact": mean([_pairs(p) == _pairs(t) for p, t in samples], named),
        "exact_objects": mean([set(p) == set(t) for p, t in samples], named),
        "pair_f1": set_f1([_pairs(p) for p in ours], [_pairs(t) for t in theirs]),
        "count": mean([len(p) == len(t) for p, t in samples], named),
        "verbatim": mean([p == t for p, t in words], [bool(p or t) for p, t in words]),
    }


def main_objects(attributes: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, list[str]]:
    """Return some attributes of the main object (most visible pixels) of every scene, each as a list (N,)."""
    objects = [scene["objects"][scene["main_object"]] for scene in attributes]
    return {name: [one[name] for one in objects] for name in names}


def set_f1(predicted: Sequence[set], truth: Sequence[set]) -> Statistic:
    """Return the micro-averaged F1 of one set per sample."""
    hits = [len(p & t) for p, t in zip(predicted, truth, strict=True)]
    return f1(hits, [len(p) for p in predicted], [len(t) for t in truth])


def _pairs(objects: Sequence[Description]) -> set[Pair]:
    return {(color, shape) for _, color, _, shape in objects}
