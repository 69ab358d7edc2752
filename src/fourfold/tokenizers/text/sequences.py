"""How each label that is a sequence becomes token ids of the text vocabulary, and back.

All formats write words and the four families of numbers `v0=` to `v3=` (4M, arXiv 2312.06647 §A.2; 4M-21, arXiv
2406.09406, appendix). Where a format leaves something to chance, such as an order, it draws from the generator that it
receives; without a generator it writes everything in a fixed order.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from fourfold.modalities import label
from fourfold.modalities.metadata import METADATA_TYPES, metadata_bins, metadata_value
from fourfold.tokenizers.text.keypoints import KeypointsFormat
from fourfold.tokenizers.text.poses_and_instances import InstancesFormat, PosesFormat
from fourfold.tokenizers.text.sequence_format import SequenceFormat, Value
from fourfold.tokenizers.text.tokenizer import TOKENS_PER_BOX, TextTokenizer

COLOR_CHANNELS = 3
COLOR_LEVELS = 256


class CaptionFormat(SequenceFormat):
    """Text as WordPiece."""

    def encode(self, value: str, rng: np.random.Generator | None = None) -> list[int]:  # noqa: D102
        return self.text.encode_caption(value)

    def decode(self, ids: Iterable[int]) -> str:  # noqa: D102
        return self.text.decode_caption(ids)


class BoxesFormat(SequenceFormat):
    """`v0=xmin v1=ymin v2=xmax v3=ymax class` for each box; if there are too many, those with the highest scores."""

    def encode(self, value: Value, rng: np.random.Generator | None = None) -> list[int]:  # noqa: D102
        return self.text.encode_boxes(value["instances"], self.max_tokens // TOKENS_PER_BOX)

    def fits(self, value: Value) -> bool:
        """Return whether all boxes fit."""
        return len(value["instances"]) * TOKENS_PER_BOX <= self.max_tokens

    def decode(self, ids: Iterable[int]) -> Value:  # noqa: D102
        return {"instances": self.text.decode_boxes(ids)}


class PaletteFormat(SequenceFormat):
    """`v1=<number of colors>`, then `v0=red v0=green v0=blue` for each color.

    A value holds palettes by their number of colors, `{"1": [[r, g, b]], "2": ...}`, 0-255. The generator draws one of
    them; without a generator the largest is written. A vocabulary of fewer than 256 bins stores coarser colors.
    """

    def encode(self, value: Value, rng: np.random.Generator | None = None) -> list[int]:  # noqa: D102
        if not value:
            return []
        sizes = sorted(value, key=int)
        palette = value[sizes[-1] if rng is None else sizes[rng.integers(len(sizes))]]
        levels = [min(max(level, 0), COLOR_LEVELS - 1) for color in palette for level in color]
        colors = [(0, round(level * self._last_level / (COLOR_LEVELS - 1))) for level in levels]
        return self.ids([(1, min(len(palette), self.num_bins - 1)), *colors])

    def decode(self, ids: Iterable[int]) -> Value:  # noqa: D102
        bins = [symbol[1] for symbol in self.symbols(ids) if not isinstance(symbol, str) and symbol[0] == 0]
        levels = [round(min(index, self._last_level) * (COLOR_LEVELS - 1) / self._last_level) for index in bins]
        num_complete = len(levels) // COLOR_CHANNELS * COLOR_CHANNELS
        colors = [levels[start : start + COLOR_CHANNELS] for start in range(0, num_complete, COLOR_CHANNELS)]
        return {str(len(colors)): colors} if colors else {}

    @property
    def _last_level(self) -> int:
        return min(COLOR_LEVELS, self.num_bins) - 1


class MetadataFormat(SequenceFormat):
    """Pairs `v1=type v0=value` in the order of the types; masking shuffles the pairs (`TokenModality.shuffled`)."""

    min_bins = max(bins.num_bins or 1 for bins in METADATA_TYPES.values())

    def encode(self, value: Value, rng: np.random.Generator | None = None) -> list[int]:  # noqa: D102
        pairs = metadata_bins(value, self.num_bins)
        return self.ids([symbol for number, bin_index in pairs for symbol in ((1, number), (0, bin_index))])

    def decode(self, ids: Iterable[int]) -> Value:  # noqa: D102
        metadata: dict[str, float] = {}
        for kind, value in pairwise(self.symbols(ids)):
            if kind[0] == 1 and value[0] == 0 and (entry := metadata_value(int(kind[1]), int(value[1]))):
                metadata.setdefault(*entry)  # a model may repeat a type: the first value counts
        return metadata


SEQUENCE_FORMATS: dict[str, type[SequenceFormat]] = {  # by the kind of a label
    "text": CaptionFormat,
    "boxes": BoxesFormat,
    "palette": PaletteFormat,
    "metadata": MetadataFormat,
    "poses": PosesFormat,
    "instances": InstancesFormat,
    "keypoints": KeypointsFormat,
}


def sequence_format(name: str, text: TextTokenizer, max_tokens: int) -> SequenceFormat:
    """Return the format of a label; raises ValueError when its kind is not a sequence."""
    kind = label(name).kind
    if kind not in SEQUENCE_FORMATS:
        raise ValueError(
            f"{name!r} has kind {kind}, which is not a sequence. Known kinds: {', '.join(SEQUENCE_FORMATS)}. Add others to "
            "SEQUENCE_FORMATS in fourfold/tokenizers/text/sequences.py."
        )
    return SEQUENCE_FORMATS[kind](text, max_tokens)


def padded(rows: Sequence[Sequence[int]], length: int) -> np.ndarray:
    """Return ids as int16 (B, length), cut or padded with 0."""
    ids = np.zeros((len(rows), length), dtype=np.int16)
    for row, tokens in zip(ids, rows, strict=True):
        row[: min(len(tokens), length)] = tokens[:length]
    return ids


def padded_vectors(rows: Sequence[np.ndarray], length: int, width: int) -> np.ndarray:
    """Return vectors as float16 (B, length, width), cut or padded with 0; raises ValueError for another width."""
    vectors = np.zeros((len(rows), length, width), dtype=np.float16)
    for padded_row, row in zip(vectors, rows, strict=True):
        if row.ndim != 2 or row.shape[1] != width:
            raise ValueError(f"Got vectors of shape {row.shape}; tokenizer_training.vectors allows (number, {width}).")
        padded_row[: min(len(row), length)] = row[:length]
    return vectors
