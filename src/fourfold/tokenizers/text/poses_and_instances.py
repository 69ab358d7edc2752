"""Human poses and SAM instances as sequences: words that open a block, and numbers within (4M-21, appendix).

Both rest on tokens of a quantizer of their own (8 for a body's pose, 16 for a mask, of 1,024 codes): a code below 512 is
written `v0=`, one above `v1=`.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from fourfold.seeds import numpy_generator
from fourfold.tokenizers.text.sequence_format import Number, SequenceFormat, Symbol, Value

HALF_OF_THE_CODES = 512
SIDES = 4
# Blocks of a body: word, field, how many numbers, their range; None: codes of the pose quantizer.
BLOCKS: dict[str, tuple[str, int, tuple[float, float] | None]] = {
    "pose": ("pose_tokens", 8, None),
    "global": ("global_orient", 9, (-1.0, 1.0)),  # a rotation matrix, row by row
    "camera": ("camera", 3, (-1.0, 19.0)),
    "shape": ("betas", 10, (-3.0, 3.0)),
}
PIXELS = 224  # to which coordinates of SAM instances are rounded
QUERY_POINTS = 7


class PosesFormat(SequenceFormat):
    """Per person `human`, the box, then the blocks of `BLOCKS` in drawn order; `none` where there is nobody.

    A value is `{"instances": [{"box": 0-1, "pose_tokens": 8 codes, "global_orient": 9, "camera": 3, "betas": 10}]}`.
    """

    smallest_vocabulary = HALF_OF_THE_CODES
    words = ("human", "none", *BLOCKS)

    def encode(self, value: Value, rng: np.random.Generator | None = None) -> list[int]:  # noqa: D102
        symbols: list[Symbol] = []
        for person in value["instances"]:
            order = list(BLOCKS) if rng is None else [list(BLOCKS)[i] for i in rng.permutation(len(BLOCKS))]
            symbols += ["human", *((side, self.place(edge, 0, 1)) for side, edge in enumerate(person["box"]))]
            for word in order:
                symbols += [word, *self._numbers(word, person)]
        return self.ids(symbols or ["none"])

    def decode(self, ids: Iterable[int]) -> Value:
        """Return everybody who is whole."""
        people = []
        for symbols in _split(self.symbols(ids), "human"):
            (_, box), *others = _blocks(["box", *symbols])
            blocks = dict(others)
            if _is_box(box) and all(len(blocks.get(word, ())) == count for word, (_, count, _) in BLOCKS.items()):
                people.append({"box": [self.value(place, 0, 1) for _, place in box]} | self._fields(blocks))
        return {"instances": people}

    def _fields(self, blocks: dict[str, list[Number]]) -> dict[str, list[float]]:
        return {
            field: [_code(number) if limits is None else self.value(number[1], *limits) for number in blocks[word]]
            for word, (field, _, limits) in BLOCKS.items()
        }

    def _numbers(self, word: str, person: dict[str, Any]) -> list[Symbol]:
        field, count, limits = BLOCKS[word]
        values = person[field]
        if len(values) != count:
            raise ValueError(f"{field!r} of a person has {count} numbers, got {len(values)}.")
        return [_written(int(value)) if limits is None else (0, self.place(value, *limits)) for value in values]


class InstancesFormat(SequenceFormat):
    """Per query point `point v0=y v1=x`, then `polygon`, box and codes of each mask that holds it, or `none`.

    A value is `{"instances": [{"polygon": [[x, y], ...], "box": [xmin, ymin, xmax, ymax], "tokens": codes}]}`, all in 0-1.
    What comes back has no polygon: it lies in the codes.
    """

    smallest_vocabulary = HALF_OF_THE_CODES
    words = ("point", "polygon", "none")

    def encode(self, value: Value, rng: np.random.Generator | None = None) -> list[int]:  # noqa: D102
        rng = rng or numpy_generator(0, "query points")
        symbols: list[Symbol] = []
        masks = [_mask(one["polygon"]) for one in value["instances"]]
        for x, y in rng.integers(PIXELS, size=(QUERY_POINTS, 2)):
            symbols += ["point", (0, self._pixel(y / PIXELS)), (1, self._pixel(x / PIXELS))]
            holding = [one for one, mask in zip(value["instances"], masks, strict=True) if mask[y, x]]
            for index in rng.permutation(len(holding)):
                box = [(side, self._pixel(edge)) for side, edge in enumerate(holding[index]["box"])]
                symbols += ["polygon", *box, *map(_written, holding[index]["tokens"])]
            symbols += [] if holding else ["none"]
        return self.ids(symbols)

    def decode(self, ids: Iterable[int]) -> Value:
        """Return each instance once."""
        found: list[dict[str, Any]] = []
        for symbols in _split(self.symbols(ids), "polygon"):
            (_, numbers), *_ = _blocks(["polygon", *symbols])
            box, codes = numbers[:SIDES], numbers[SIDES:]
            if _is_box(box):
                one = {"box": [place / self._levels for _, place in box], "tokens": [_code(number) for number in codes]}
                found += [] if one in found else [one]
        return {"instances": found}

    @property
    def _levels(self) -> int:
        return min(PIXELS, self.num_places - 1)

    def _pixel(self, share: float) -> int:
        return round(min(max(float(share), 0.0), 1.0) * self._levels)


def _mask(polygon: list[list[float]]) -> np.ndarray:
    """Return bool (PIXELS, PIXELS), True within a polygon and on its border."""
    image = Image.new("1", (PIXELS, PIXELS))
    ImageDraw.Draw(image).polygon([(x * PIXELS, y * PIXELS) for x, y in polygon], fill=1, outline=1)
    return np.asarray(image)


def _written(code: int) -> Number:
    return (0, code) if code < HALF_OF_THE_CODES else (1, code - HALF_OF_THE_CODES)


def _code(number: Number) -> int:
    return number[1] + HALF_OF_THE_CODES * (number[0] == 1)


def _is_box(numbers: list[Number]) -> bool:
    return [side for side, _ in numbers] == list(range(SIDES))


def _split(symbols: list[Symbol], word: str) -> Iterator[list[Symbol]]:
    """Yield what stands behind each `word`, up to the next."""
    places = [place for place, symbol in enumerate(symbols) if symbol == word]
    for start, end in pairwise([*places, len(symbols)]):
        yield symbols[start + 1 : end]


def _blocks(symbols: list[Symbol]) -> list[tuple[str, list[Number]]]:
    """Return each word with the numbers behind it; `symbols` starts with a word."""
    blocks: list[tuple[str, list[Number]]] = []
    for symbol in symbols:
        if isinstance(symbol, str):
            blocks.append((symbol, []))
        else:
            blocks[-1][1].append(symbol)
    return blocks
