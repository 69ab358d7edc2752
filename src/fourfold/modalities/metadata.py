"""The types of metadata of 4M-21 and how values are quantized (arXiv 2406.09406, appendix).

A value is a pair of tokens: `v1=<number of the type> v0=<index of its bin>`. Numbers and bins are those of the released models,
so a type may be added at the end but never moved.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fourfold.suggestions import unknown_name


class Bins(Protocol):
    """A quantizer: maps a value to the index of its bin, from 0, and an index to a value of the bin."""

    def index(self, value: float) -> int:
        """Return the index of the bin of a value; values outside all bins go to the nearest."""

    def value(self, index: int) -> float:
        """Return the value that represents a bin: `index(value(i)) == i`."""

    @property
    def num_bins(self) -> int | None:
        """Number of bins; None: as many as the vocabulary has."""


@dataclass(frozen=True)
class Range:
    """Equal bins over [low, high]; the last bin is `high` and everything above."""

    low: float
    high: float
    num_bins: int = 50

    @property
    def width(self) -> float:
        """Width of a bin, in the unit of the value."""
        return (self.high - self.low) / (self.num_bins - 1)

    def index(self, value: float) -> int:  # noqa: D102
        return int((min(max(value, self.low), self.high) - self.low) / (self.high - self.low) * (self.num_bins - 1))

    def value(self, index: int) -> float:  # noqa: D102
        return min(self.low + (min(index, self.num_bins - 1) + 0.5) * self.width, self.high)


@dataclass(frozen=True)
class Count:
    """Whole numbers, `step` of them in each bin."""

    step: int = 1
    num_bins: int | None = None

    def index(self, value: float) -> int:  # noqa: D102
        return max(int(value) // self.step, 0)

    def value(self, index: int) -> float:  # noqa: D102
        return index * self.step + self.step // 2


@dataclass(frozen=True)
class Borders:
    """Bins between given borders; `values` has one value for each bin."""

    borders: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def num_bins(self) -> int:  # noqa: D102
        return len(self.values)

    def index(self, value: float) -> int:  # noqa: D102
        return sum(value >= border for border in self.borders)

    def value(self, index: int) -> float:  # noqa: D102
        return self.values[min(index, len(self.values) - 1)]


METADATA_TYPES: dict[str, Bins] = {  # in the order of their numbers
    "original_width": Count(32),  # pixels
    "original_height": Count(32),
    "caption_n_chars": Count(),
    "caption_n_words": Count(),
    "caption_n_sentences": Count(),
    "n_humans": Count(),
    "n_sam_instances": Count(),
    "n_coco_instances": Count(),  # boxes
    "coco_instance_diversity": Count(),  # classes among them
    "colorfulness": Range(0, 150),  # Hasler and Süsstrunk (2003)
    "brightness": Range(0, 255),  # mean of gray
    "contrast": Range(0, 127),  # standard deviation of gray
    "saturation": Range(0, 255),  # mean of HSV's S
    "entropy": Range(0, 10),  # bits of the histogram of gray
    "walkability": Range(0, 1),  # share of pixels of classes one can walk on
    "objectness": Range(0, 1),  # share of pixels of classes of objects
    "semantic_diversity": Count(),  # classes in the segmentation
    "geometric_complexity": Range(0, 0.75),  # angular variance of the normals
    "occlusion_score": Range(0, 0.25),  # share of pixels at steps of the depth
    "watermark_score": Borders((0.5,), (0.25, 0.75)),
    "aesthetic_score": Borders((4.5, 5.5), (4.0, 5.0, 6.0)),
}
METADATA_NUMBERS = {name: number for number, name in enumerate(METADATA_TYPES)}


def metadata_bins(values: Mapping[str, float], num_bins: int) -> list[tuple[int, int]]:
    """Return (number of the type, index of the bin) of each value, in the order of the numbers.

    Args:
        values: values by type.
        num_bins: number of bins of the vocabulary; larger counts go to the last one.

    Raises:
        ValueError: a type is unknown.
    """
    for name in values:
        known_type(name)
    pairs = ((METADATA_NUMBERS[name], bins.index(values[name])) for name, bins in METADATA_TYPES.items() if name in values)
    return [(number, min(index, num_bins - 1)) for number, index in pairs]


def metadata_value(number: int, index: int) -> tuple[str, float] | None:
    """Return the type and value of a pair of tokens; None when the type or bin does not exist."""
    if number >= len(METADATA_TYPES):
        return None
    name, bins = list(METADATA_TYPES.items())[number]
    return None if bins.num_bins is not None and index >= bins.num_bins else (name, bins.value(index))


def known_type(name: str) -> str:
    """Return the name of a type unchanged; raises ValueError that suggests the nearest when it is unknown."""
    if name not in METADATA_TYPES:
        raise ValueError(unknown_name("metadata", name, METADATA_TYPES))
    return name
