"""Human poses and SAM instances as sequences of words that open a block, and of the block's numbers.

As in 4M-21 (arXiv 2406.09406, appendix).

Both contain ids of a separate quantizer with 1,024 codes: 8 for the pose of a person, 16 for the mask of an instance. A
code below 512 is written as `v0=<code>`, one above as `v1=<code - 512>`.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from fourfold.seeds import numpy_generator
from fourfold.tokenizers.text.sequence_format import Number, SequenceFormat, Symbol, Value
from fourfold.tokenizers.text.tokenizer import SIDES

HALF_OF_THE_CODES = 512
# Blocks of a person: word → field of the value, number of numbers, their range (None: codes of the pose quantizer).
BLOCKS: dict[str, tuple[str, int, tuple[float, float] | None]] = {
    "pose": ("pose_tokens", 8, None),
    "global": ("global_orient", 9, (-1.0, 1.0)),  # a rotation matrix, row by row
    "camera": ("camera", 3, (-1.0, 19.0)),
    "shape": ("betas", 10, (-3.0, 3.0)),
}
IMAGE_SIDE = 224  # pixels: coordinates of SAM instances are rounded to these
NUM_QUERY_POINTS = 7


class PosesFormat(SequenceFormat):
    """For each person `human`, the box, then the blocks of `BLOCKS` in a drawn order; `none` where there is no person.

    A value is `{"instances": [{"box": 0-1, "pose_tokens": 8 codes, "global_orient": 9, "camera": 3, "betas": 10}]}`.
    """

    min_bins = HALF_OF_THE_CODES
    words = ("human", "none", *BLOCKS)

    def encode(self, value: Value, rng: np.random.Generator | None = None) -> list[int]:  # noqa: D102
        symbols: list[Symbol] = []
        for person in value["instances"]:
            order = list(BLOCKS) if rng is None else [list(BLOCKS)[i] for i in rng.permutation(len(BLOCKS))]
            symbols += ["human", *((side, self.bin_index(edge, 0, 1)) for side, edge in enumerate(person["box"]))]
            for word in order:
                symbols += [word, *self._numbers(word, person)]
        return self.ids(symbols or ["none"])

    def decode(self, ids: Iterable[int]) -> Value:
        """Return every person whose box and blocks are complete."""
        people = []
        for symbols in _after_each("human", self.symbols(ids)):
            (_, box), *others = _blocks(["box", *symbols])
            blocks = dict(others)
            if _is_box(box) and all(len(blocks.get(word, ())) == count for word, (_, count, _) in BLOCKS.items()):
                people.append({"box": [self.bin_value(index, 0, 1) for _, index in box]} | self._fields(blocks))
        return {"instances": people}

    def _fields(self, blocks: dict[str, list[Number]]) -> dict[str, list[float]]:
        return {
            field: [_code(number) if limits is None else self.bin_value(number[1], *limits) for number in blocks[word]]
            for word, (field, _, limits) in BLOCKS.items()
        }

    def _numbers(self, word: str, person: dict[str, Any]) -> list[Symbol]:
        field, count, limits = BLOCKS[word]
        values = person[field]
        if len(values) != count:
            raise ValueError(f"{field!r} of a person must have {count} numbers, got {len(values)}.")
        return [_code_symbol(int(value)) if limits is None else (0, self.bin_index(value, *limits)) for value in values]


class InstancesFormat(SequenceFormat):
    """For each query point `point v0=y v1=x`, then `polygon`, box and codes of each mask that contains it, or `none`.

    A value is `{"instances": [{"polygon": [[x, y], ...], "box": [xmin, ymin, xmax, ymax], "tokens": codes}]}`, all in
    0-1. Decoded values have no polygon: the codes stand for it.
    """

    min_bins = HALF_OF_THE_CODES
    words = ("point", "polygon", "none")

    def encode(self, value: Value, rng: np.random.Generator | None = None) -> list[int]:  # noqa: D102
        rng = rng or numpy_generator(0, "query points")
        symbols: list[Symbol] = []
        masks = [_mask(instance["polygon"]) for instance in value["instances"]]
        for x, y in rng.integers(IMAGE_SIDE, size=(NUM_QUERY_POINTS, 2)):
            symbols += ["point", (0, self._pixel(y / IMAGE_SIDE)), (1, self._pixel(x / IMAGE_SIDE))]
            hits = [instance for instance, mask in zip(value["instances"], masks, strict=True) if mask[y, x]]
            for index in rng.permutation(len(hits)):
                box = [(side, self._pixel(edge)) for side, edge in enumerate(hits[index]["box"])]
                symbols += ["polygon", *box, *map(_code_symbol, hits[index]["tokens"])]
            symbols += [] if hits else ["none"]
        return self.ids(symbols)

    def decode(self, ids: Iterable[int]) -> Value:
        """Return each instance once, although several query points may hit it."""
        instances: list[dict[str, Any]] = []
        for symbols in _after_each("polygon", self.symbols(ids)):
            (_, numbers), *_ = _blocks(["polygon", *symbols])
            box, codes = numbers[:SIDES], numbers[SIDES:]
            if _is_box(box):
                sides = [index / self._last_pixel for _, index in box]
                instance = {"box": sides, "tokens": [_code(number) for number in codes]}
                instances += [] if instance in instances else [instance]
        return {"instances": instances}

    @property
    def _last_pixel(self) -> int:
        return min(IMAGE_SIDE, self.num_bins - 1)

    def _pixel(self, share: float) -> int:
        return round(min(max(float(share), 0.0), 1.0) * self._last_pixel)


def _mask(polygon: list[list[float]]) -> np.ndarray:
    """Return bool (IMAGE_SIDE, IMAGE_SIDE), True inside a polygon and on its border."""
    image = Image.new("1", (IMAGE_SIDE, IMAGE_SIDE))
    ImageDraw.Draw(image).polygon([(x * IMAGE_SIDE, y * IMAGE_SIDE) for x, y in polygon], fill=1, outline=1)
    return np.asarray(image)


def _code_symbol(code: int) -> Number:
    return (0, code) if code < HALF_OF_THE_CODES else (1, code - HALF_OF_THE_CODES)


def _code(number: Number) -> int:
    return number[1] + HALF_OF_THE_CODES * (number[0] == 1)


def _is_box(numbers: list[Number]) -> bool:
    return [side for side, _ in numbers] == list(range(SIDES))


def _after_each(word: str, symbols: list[Symbol]) -> Iterator[list[Symbol]]:
    """Yield what follows each `word`, up to the next one."""
    starts = [index for index, symbol in enumerate(symbols) if symbol == word]
    for start, end in pairwise([*starts, len(symbols)]):
        yield symbols[start + 1 : end]


def _blocks(symbols: list[Symbol]) -> list[tuple[str, list[Number]]]:
    """Return each word with the numbers that follow it; `symbols` must start with a word."""
    blocks: list[tuple[str, list[Number]]] = []
    for symbol in symbols:
        if isinstance(symbol, str):
            blocks.append((symbol, []))
        else:
            blocks[-1][1].append(symbol)
    return blocks
