"""The part of an image that is learned, and what becomes of its labels: maps of classes, depth and boxes follow the image."""

# H W size of an image, S side of the model, G boxes

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fourfold.evaluation.benchmarks.views import NO_CLASS, Box, nearest, resized
from fourfold.metrics.detection import TrueBoxes

MIN_SIDE = 1.0  # pixels of the model's image: boxes of which less is seen are not learned
Size = tuple[int, int]  # height and width of an image in pixels


class Part(Protocol):
    """Which part of an image a model sees, as a square of S pixels; `augmentation.Jitter` is another one."""

    @property
    def side(self) -> int:
        """S."""

    def image(self, rgb_HW3: np.ndarray) -> np.ndarray:
        """Return the part of an image as uint8 (S, S, 3)."""

    def map(self, values_HW: np.ndarray, outside: float) -> np.ndarray:
        """Return the part of a map (S, S) in its type, without interpolation; `outside` where there is no image."""

    def affine(self, size: Size) -> tuple[float, float, float, float]:
        """Return scales and shifts a, b, c, d: the point (y, x) of an image of `size` is seen at (a · y + c, b · x + d)."""


@dataclass(frozen=True)
class Crop:
    """A rectangle of an image, resized to a square of `side` pixels."""

    box: Box
    side: int

    def image(self, rgb_HW3: np.ndarray) -> np.ndarray:
        """Return the part of an image; see `Part`."""
        return resized(rgb_HW3[self._slices], self.side)

    def map(self, values_HW: np.ndarray, outside: float = 0) -> np.ndarray:
        """Return the part of a map; see `Part`."""
        return nearest(values_HW[self._slices], self.side, self.side)

    def affine(self, size: Size) -> tuple[float, float, float, float]:
        """Return scales and shifts; see `Part`."""
        top, left, height, width = self.box
        a, b = self.side / height, self.side / width
        return a, b, -a * top, -b * left

    @property
    def _slices(self) -> tuple[slice, slice]:
        top, left, height, width = self.box
        return slice(top, top + height), slice(left, left + width)


class Labels(Protocol):
    """What becomes of the truth of an example of one kind when a part of its image is learned."""

    @property
    def moved_by_rand_augment(self) -> str | None:
        """What operations that move an image leave behind, for an error; None: nothing."""

    @property
    def has_windows(self) -> bool:
        """Whether scoring looks at windows of an image; otherwise the truth is about the whole image."""

    def of_part(self, truth: Any, part: Part, size: Size, scored: Box) -> Any:
        """Return the label of a part.

        Args:
            truth: of the example.
            part: that is learned.
            size: of the image.
            scored: one of the parts that scoring sees of an image of this size.
        """

    def mirrored(self, label: Any) -> Any:
        """Return the label of a part that is mirrored."""


class WholeImage:
    """Classes and answers, which stay as they are."""

    moved_by_rand_augment: str | None = None
    has_windows = False

    def of_part(self, truth: Any, part: Part, size: Size, scored: Box) -> Any:
        """Return the truth."""
        return truth

    def mirrored(self, label: Any) -> Any:
        """Return the label."""
        return label


class ClassMaps:
    """Maps of class ids: 255, which is ignored, outside of the image."""

    moved_by_rand_augment: str | None = "map"
    has_windows = True

    def of_part(self, truth: np.ndarray, part: Part, size: Size, scored: Box) -> np.ndarray:
        """Return ids (S, S) in their type."""
        return part.map(truth, NO_CLASS)

    def mirrored(self, label: np.ndarray) -> np.ndarray:
        """Return ids (S, S)."""
        return label[:, ::-1]


@dataclass(frozen=True)
class DepthMaps:
    """Depth in meters, 0 where it is unknown, outside of the limits, or no image.

    A part that is enlarged by s, compared with what scoring sees, shows the scene as if it were nearer, so that its depth is
    divided by s (Eigen et al. 2014, arXiv 1406.2283, section 3.4); s is the geometric mean of both axes. Values are not
    interpolated: at an edge and beside unknown pixels a mean is the depth of nothing.
    """

    min_depth: float  # meters, both exclusive, as in the official measure
    max_depth: float
    moved_by_rand_augment: str | None = "map"
    has_windows = True

    def of_part(self, truth: np.ndarray, part: Part, size: Size, scored: Box) -> np.ndarray:
        """Return depth float32 (S, S)."""
        with np.errstate(invalid="ignore"):
            # Before the division: a far reading, which a sensor cuts off, must not become a near one
            known_HW = np.where((truth > self.min_depth) & (truth < self.max_depth), truth, 0)
        seen = part.map(known_HW, 0)
        a, b, *_ = part.affine(size)
        _, _, height, width = scored
        zoom = (a * height * b * width) ** 0.5 / len(seen)
        return (seen / zoom).astype(np.float32)

    def mirrored(self, label: np.ndarray) -> np.ndarray:
        """Return depth (S, S)."""
        return label[:, ::-1]


@dataclass(frozen=True)
class BoxLabels:
    """Boxes as the head learns them (`fourfold.transfer.heads.detection.Boxes`), with coordinates from 0 to 1 of the part.

    They are cut to the part. Those of which less than a pixel of its height or width is left are not learned, nor are those
    that the measure ignores: crowds of COCO, difficult objects of VOC.
    """

    names: Sequence[str]  # of the classes
    moved_by_rand_augment: str | None = "boxes"
    has_windows = False

    def of_part(self, truth: TrueBoxes, part: Part, size: Size, scored: Box) -> dict[str, Any]:
        """Return `{"instances": [{"box": [xmin, ymin, xmax, ymax], "class_name": str}]}`."""
        a, b, c, d = part.affine(size)
        # A box ends with its image, of which a small one covers a part of the square
        height, width = (min(part.side, scale * length + shift) for scale, length, shift in ((a, size[0], c), (b, size[1], d)))
        seen_G4 = np.clip(truth.box_G4 * (b, a, b, a) + (d, c, d, c), 0, (width, height, width, height))
        is_large_G = (seen_G4[:, 2:] - seen_G4[:, :2] >= MIN_SIDE).all(axis=1)
        chosen = np.flatnonzero(is_large_G & ~truth.ignored_G)
        return {
            "instances": [
                {"box": (seen_G4[i] / part.side).tolist(), "class_name": self.names[int(truth.class_G[i])]} for i in chosen
            ]
        }

    def mirrored(self, label: dict[str, Any]) -> dict[str, Any]:
        """Return the boxes of a mirrored part."""

        def turned(box: list[float]) -> list[float]:
            x0, y0, x1, y1 = box
            return [1 - x1, y0, 1 - x0, y1]

        return {"instances": [{**one, "box": turned(one["box"])} for one in label["instances"]]}
