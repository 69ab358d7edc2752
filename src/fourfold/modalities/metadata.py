"""The types of metadata of 4M-21 and how each value becomes one of a few places (arXiv 2406.09406, appendix).

A pair of tokens says one: `v1=<number of the type> v0=<place of the value>`. Numbers and bins are those of the released models,
so a type may be added at the end but never moved.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from fourfold.suggestions import unknown_name


class Bins(Protocol):
    """A way from a value to a place, a whole number from 0, and back to a value of that place."""

    def place(self, value: float) -> int:
        """Return the place of a value; what lies outside goes to the nearest place."""

    def value(self, place: int) -> float:
        """Return the value that stands for a place: `place(value(p)) == p`."""

    @property
    def num_places(self) -> int | None:
        """How many places there are; None: as many as the vocabulary has."""


@dataclass(frozen=True)
class Range:
    """Equal bins over [low, high]; the last place is `high` and all above."""

    low: float
    high: float
    num_places: int = 50

    @property
    def width(self) -> float:
        """Of a bin, in the unit of the value."""
        return (self.high - self.low) / (self.num_places - 1)

    def place(self, value: float) -> int:  # noqa: D102
        return int((min(max(value, self.low), self.high) - self.low) / (self.high - self.low) * (self.num_places - 1))

    def value(self, place: int) -> float:  # noqa: D102
        return min(self.low + (min(place, self.num_places - 1) + 0.5) * self.width, self.high)


@dataclass(frozen=True)
class Count:
    """Whole numbers, each in a place of its own, or `step` of them in one."""

    step: int = 1
    num_places: int | None = None

    def place(self, value: float) -> int:  # noqa: D102
        return max(int(value) // self.step, 0)

    def value(self, place: int) -> float:  # noqa: D102
        return place * self.step + self.step // 2


@dataclass(frozen=True)
class Borders:
    """Places between given borders; `values` has one for each."""

    borders: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def num_places(self) -> int:  # noqa: D102
        return len(self.values)

    def place(self, value: float) -> int:  # noqa: D102
        return sum(value >= border for border in self.borders)

    def value(self, place: int) -> float:  # noqa: D102
        return self.values[min(place, len(self.values) - 1)]


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
    "objectness": Range(0, 1),  # share of pixels of classes of things
    "semantic_diversity": Count(),  # classes in the segmentation
    "geometric_complexity": Range(0, 0.75),  # angular variance of the normals
    "occlusion_score": Range(0, 0.25),  # share of pixels at steps of the depth
    "watermark_score": Borders((0.5,), (0.25, 0.75)),
    "aesthetic_score": Borders((4.5, 5.5), (4.0, 5.0, 6.0)),
}
METADATA_NUMBERS = {name: number for number, name in enumerate(METADATA_TYPES)}


def metadata_places(values: Mapping[str, float], num_places: int) -> list[tuple[int, int]]:
    """Return (number of the type, place of its value) of each entry, in the order of the numbers.

    `num_places`: how many the vocabulary has; counts beyond stay in the last one. Raises ValueError for an unknown type.
    """
    for name in values:
        known_type(name)
    pairs = ((METADATA_NUMBERS[name], bins.place(values[name])) for name, bins in METADATA_TYPES.items() if name in values)
    return [(number, min(place, num_places - 1)) for number, place in pairs]


def metadata_value(number: int, place: int) -> tuple[str, float] | None:
    """Return name and value of a pair; None when there is no such type or place."""
    if number >= len(METADATA_TYPES):
        return None
    name, bins = list(METADATA_TYPES.items())[number]
    return None if bins.num_places is not None and place >= bins.num_places else (name, bins.value(place))


def known_type(name: str) -> str:
    """Return the name of a type as it is; raises ValueError that suggests the nearest when there is none."""
    if name not in METADATA_TYPES:
        raise ValueError(unknown_name("metadata", name, METADATA_TYPES))
    return name
