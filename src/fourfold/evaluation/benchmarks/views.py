"""How images of any size become the square inputs of a model, and how its dense answers return to the original size.

`squash` resizes the whole image to a square. `crop` takes the center square; the rest of the image has no answer. `windows`
covers the image with overlapping squares, at several scales and mirrored if asked: values are averaged, classes voted.
"""

# B images, H W original size, S side of the model, C channels or classes

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

ViewName = Literal["squash", "crop", "windows"]
NO_CLASS = 255
Box = tuple[int, int, int, int]  # top, left, height, width in the original image
Part = tuple[Box, Any, bool]  # a part of an image, the answer to it, and whether it was seen mirrored
Predict = Callable[[np.ndarray], np.ndarray]  # uint8 (B, S, S, 3) → one answer per image


@dataclass(frozen=True)
class View:
    """Which parts of an image a model sees."""

    name: ViewName
    side: int
    scales: tuple[float, ...] = (1.0,)  # of windows: their side, as a share of the shorter side of the image
    overlap: float = 0.5  # of neighboring windows
    flip: bool = False  # see each part mirrored, too

    def boxes(self, height: int, width: int) -> list[Box]:
        """Return the parts of an image that the model sees."""
        short = min(height, width)
        if self.name == "squash":
            return [(0, 0, height, width)]
        if self.name == "crop":
            return [((height - short) // 2, (width - short) // 2, short, short)]
        return [box for scale in self.scales for box in _windows(height, width, max(1, round(short * scale)), self.overlap)]

    def inputs(self, rgb_HW3: np.ndarray) -> np.ndarray:
        """Return the parts of an image as model inputs, uint8 (parts, S, S, 3); mirrored ones follow their originals."""
        parts = [
            resized(rgb_HW3[top : top + h, left : left + w], self.side) for top, left, h, w in self.boxes(*rgb_HW3.shape[:2])
        ]
        return np.stack([part for each in parts for part in ([each, each[:, ::-1]] if self.flip else [each])])

    def parts(self, size: tuple[int, ...], answers: Sequence[Any] | np.ndarray) -> list[Part]:
        """Return the answers to the `inputs` of an image of a size (H, W), each with its part of the image."""
        boxes = [(box, flag) for box in self.boxes(*size[:2]) for flag in ((False, True) if self.flip else (False,))]
        return [(box, answer, flag) for (box, flag), answer in zip(boxes, answers, strict=True)]

    def main_input(self, rgb_HW3: np.ndarray) -> np.ndarray:
        """Return one model input uint8 (S, S, 3) for answers about an image: all of it squashed, or its center square."""
        box = View("crop" if self.name == "crop" else "squash", self.side).boxes(*rgb_HW3.shape[:2])[0]
        top, left, height, width = box
        return resized(rgb_HW3[top : top + height, left : left + width], self.side)


def _windows(height: int, width: int, size: int, overlap: float) -> list[Box]:
    def starts(length: int) -> list[int]:
        stride = max(1, round(size * (1 - overlap)))
        count = -(-(length - size) // stride) + 1
        return sorted({min(index * stride, length - size) for index in range(count)})

    return [(top, left, size, size) for top in starts(height) for left in starts(width)]


def dense_values(
    view: View, rgb: Sequence[np.ndarray], predict: Predict, mirror: Callable = lambda values: values
) -> list[np.ndarray]:
    """Return dense numbers of each image, float64 (H, W, C): NaN where no part of the view was.

    Args:
        view: which parts the model sees.
        rgb: images of any size.
        predict: model inputs → (B, h, w) or (B, h, w, C).
        mirror: changes the values of a part that was seen mirrored, after it was mirrored back, e.g. the x of normals.
    """
    return [
        merged_values(image.shape[:2], parts, mirror) for image, parts in zip(rgb, _answers(view, rgb, predict), strict=True)
    ]


def dense_classes(view: View, rgb: Sequence[np.ndarray], predict: Predict, lut_256: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the class of each pixel uint8 (H, W): the most votes of the parts, of equal ones the lowest id; 255 without any.

    Args:
        view: which parts the model sees.
        rgb: images of any size.
        predict: model inputs → class ids uint8 (B, h, w).
        lut_256: from the model's ids to those of the benchmark; 255: none.
        count: number of classes of the benchmark.
    """
    answers = zip(rgb, _answers(view, rgb, predict), strict=True)
    return [merged_classes(image.shape[:2], parts, lut_256, count) for image, parts in answers]


def merged_classes(size: tuple[int, ...], parts: Sequence[Part], lut_256: np.ndarray, count: int) -> np.ndarray:
    """Return the class of each pixel uint8 (H, W) from the answers of an image's parts; arguments as for `dense_classes`."""
    if len(parts) == 1:
        (top, left, h, w), value, _ = parts[0]
        ids_HW = np.full(size, NO_CLASS, np.uint8)
        ids_HW[top : top + h, left : left + w] = lut_256[nearest(value, h, w)]
        return ids_HW
    votes_CHW = np.zeros((count, *size), np.uint16)
    for (top, left, h, w), value, is_mirrored in parts:
        ids = lut_256[nearest(value[:, ::-1] if is_mirrored else value, h, w)]
        for number in np.unique(lut_256[value]):  # a part has few classes: this is faster than an index for each pixel
            if number != NO_CLASS:
                votes_CHW[number, top : top + h, left : left + w] += ids == number
    most_HW, best_HW = np.zeros(size, np.uint16), np.full(size, NO_CLASS, np.uint8)
    for number, votes_HW in enumerate(votes_CHW):  # of equally many votes the lowest id
        is_better_HW = votes_HW > most_HW
        np.copyto(best_HW, number, where=is_better_HW, casting="unsafe")
        np.copyto(most_HW, votes_HW, where=is_better_HW)
    return best_HW


def _answers(view: View, rgb: Sequence[np.ndarray], predict: Predict) -> Iterator[list[Part]]:
    inputs = [view.inputs(image) for image in rgb]
    predicted = predict(np.concatenate(inputs))
    start = 0
    for image, parts in zip(rgb, inputs, strict=True):
        yield view.parts(image.shape[:2], predicted[start : start + len(parts)])
        start += len(parts)


def merged_values(size: tuple[int, ...], parts: Sequence[Part], mirror: Callable = lambda values: values) -> np.ndarray:
    """Return dense numbers float64 (H, W, C) from the answers of an image's parts; arguments as for `dense_values`."""
    if len(parts) == 1 and not parts[0][2]:
        (top, left, h, w), value, _ = parts[0]
        placed = resized_values(np.asarray(value).reshape(*value.shape[:2], -1), h, w)
        found_HWC = np.full((*size, placed.shape[-1]), np.nan)
        found_HWC[top : top + h, left : left + w] = placed
        return found_HWC
    total: np.ndarray | None = None
    weight_HW1 = np.zeros((*size, 1))
    for (top, left, h, w), value, is_mirrored in parts:
        value = np.asarray(value, np.float64).reshape(*value.shape[:2], -1)
        placed = resized_values(mirror(value[:, ::-1]) if is_mirrored else value, h, w)
        total = np.zeros((*size, placed.shape[-1])) if total is None else total
        total[top : top + h, left : left + w] += placed
        weight_HW1[top : top + h, left : left + w] += 1
    assert total is not None
    return np.where(weight_HW1 > 0, total / np.maximum(weight_HW1, 1), np.nan)


def resized(rgb_HW3: np.ndarray, side: int) -> np.ndarray:
    """Return an image as uint8 (side, side, 3), bicubic."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb_HW3)).resize((side, side), Image.Resampling.BICUBIC))


def resized_values(value_hwC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return numbers (h, w, C) as float64 (height, width, C), bilinear."""
    if value_hwC.shape[:2] == (height, width):
        return value_hwC.astype(np.float64)
    planes = [Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(value_hwC, -1, 0)]
    return np.stack(
        [np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR), np.float64) for plane in planes], axis=-1
    )


def nearest(value_hw: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return values (h, w) at another size without interpolation; each pixel takes the value at its center."""
    rows = ((np.arange(height) + 0.5) * value_hw.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * value_hw.shape[1] / width).astype(int)
    return value_hw[np.ix_(rows, columns)]
