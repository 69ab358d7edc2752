"""How each label that is a sequence becomes token ids of the one text vocabulary, and comes back.

All write with words and the four families of numbers `v0=` to `v3=` (4M-7 §A.2; 4M-21, appendix). Kinds whose order or extent
is a matter of chance draw it from the generator they are given; without one they write everything in a fixed order.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from fourfold.modalities import label
from fourfold.modalities.metadata import METADATA_TYPES, metadata_bins, metadata_value
from fourfold.tokenizers.text.poses_and_instances import InstancesFormat, PosesFormat
from fourfold.tokenizers.text.sequence_format import SequenceFormat, Value
from fourfold.tokenizers.text.tokenizer import TOKENS_PER_BOX, TextTokenizer

COLORS = 3  # of a pixel
LEVELS = 256  # of a color


class CaptionFormat(SequenceFormat):
    """Text as WordPiece."""

    def encode(self, value: str, rng: np.random.Generator | None = None) -> list[int]:  # noqa: D102
        return self.text.encode_caption(value)

    def decode(self, ids: Iterable[int]) -> str:  # noqa: D102
        return self.text.decode_caption(ids)


class BoxesFormat(SequenceFormat):
    """`v0=xmin v1=ymin v2=xmax v3=ymax class`; of too many boxes the most certain stay."""

    def encode(self, value: Value, rng: np.random.Generator | None = None) -> list[int]:  # noqa: D102
        return self.text.encode_boxes(value["instances"], self.max_tokens // TOKENS_PER_BOX)

    def decode(self, ids: Iterable[int]) -> Value:  # noqa: D102
        return {"instances": self.text.decode_boxes(ids)}


class PaletteFormat(SequenceFormat):
    """`v1=<number of colors>`, then `v0=red v0=green v0=blue` of each.

    A value holds palettes by their number of colors, `{"1": [[r, g, b]], "2": ...}`, 0-255: one of them is drawn, by default
    the largest is written. A vocabulary of less than 256 places has coarser colors.
    """

    def encode(self, value: Value, rng: np.random.Generator | None = None) -> list[int]:  # noqa: D102
        if not value:
            return []
        sizes = sorted(value, key=int)
        chosen = value[sizes[-1] if rng is None else sizes[rng.integers(len(sizes))]]
        levels = self._levels
        colors = [(0, round(min(max(level, 0), LEVELS - 1) * levels / (LEVELS - 1))) for color in chosen for level in color]
        return self.ids([(1, min(len(chosen), self.num_places - 1)), *colors])

    def decode(self, ids: Iterable[int]) -> Value:  # noqa: D102
        places = [symbol[1] for symbol in self.symbols(ids) if not isinstance(symbol, str) and symbol[0] == 0]
        levels = [round(min(place, self._levels) * (LEVELS - 1) / self._levels) for place in places]
        whole = len(levels) // COLORS * COLORS
        colors = [levels[start : start + COLORS] for start in range(0, whole, COLORS)]
        return {str(len(colors)): colors} if colors else {}

    @property
    def _levels(self) -> int:
        return min(LEVELS, self.num_places) - 1


class MetadataFormat(SequenceFormat):
    """Pairs `v1=type v0=value`, in the order of the types; masking shuffles them (`TokenModality.shuffled`)."""

    smallest_vocabulary = max(bins.num_bins or 1 for bins in METADATA_TYPES.values())

    def encode(self, value: Value, rng: np.random.Generator | None = None) -> list[int]:  # noqa: D102
        pairs = metadata_bins(value, self.num_places)
        return self.ids([symbol for number, place in pairs for symbol in ((1, number), (0, place))])

    def decode(self, ids: Iterable[int]) -> Value:  # noqa: D102
        found: dict[str, float] = {}
        symbols = self.symbols(ids)
        for kind, value in pairwise(symbols):
            if kind[0] == 1 and value[0] == 0 and (entry := metadata_value(int(kind[1]), int(value[1]))):
                found.setdefault(*entry)
        return found


SEQUENCE_FORMATS: dict[str, type[SequenceFormat]] = {
    "text": CaptionFormat,
    "boxes": BoxesFormat,
    "palette": PaletteFormat,
    "metadata": MetadataFormat,
    "poses": PosesFormat,
    "instances": InstancesFormat,
}


def sequence_format(name: str, text: TextTokenizer, max_tokens: int) -> SequenceFormat:
    """Return the format of a label that is a sequence; raises ValueError for one that is not."""
    kind = label(name).kind
    if kind not in SEQUENCE_FORMATS:
        known = ", ".join(SEQUENCE_FORMATS)
        raise ValueError(
            f"{name!r} is {kind}, which is no sequence. Kinds that are: {known} (fourfold/tokenizers/text/sequences.py)."
        )
    return SEQUENCE_FORMATS[kind](text, max_tokens)


def padded(rows: Sequence[Sequence[int]], length: int) -> np.ndarray:
    """Return ids as int16 (B, length), cut or padded with 0."""
    ids = np.zeros((len(rows), length), dtype=np.int16)
    for row, tokens in zip(ids, rows, strict=True):
        row[: min(len(tokens), length)] = tokens[:length]
    return ids


def padded_vectors(rows: Sequence[np.ndarray], length: int, width: int) -> np.ndarray:
    """Return vectors as float16 (B, length, width), cut or padded with rows of 0; raises ValueError for another width."""
    vectors = np.zeros((len(rows), length, width), dtype=np.float16)
    for padded_row, row in zip(vectors, rows, strict=True):
        if row.ndim != 2 or row.shape[1] != width:
            raise ValueError(f"Vectors came with shape {row.shape}; (number, {width}) is set in `vectors`.")
        padded_row[: min(len(row), length)] = row[:length]
    return vectors
