"""Where a prediction is wrong: an image of the error of each pixel, on a scale that is the same for all samples."""

# H height, W width, h w patches, C channels

from collections.abc import Callable, Mapping
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from fourfold.metrics.dense import aligned_depth, unit_normals
from fourfold.modalities import label

COLORS = matplotlib.colormaps["inferno"]  # black: no error, light yellow: `SCALES` or more
NOT_COUNTED = (128, 128, 128)  # pixels that no metric counts, e.g. the sky in depth
# What the lightest color means, by kind of label; the report prints it.
SCALES: dict[str, tuple[float, str]] = {
    "depth": (0.25, "a relative error of depth of 25 %"),
    "normals": (60.0, "60 degrees between normals"),
    "classes": (1.0, "a wrong class"),
    "features": (1.0, "a cosine of 0 between features"),
}


def error_map(
    name: str, predicted: np.ndarray, reference: np.ndarray, counted_HW: np.ndarray | None = None
) -> np.ndarray | None:
    """Return the error of each pixel of a label as an image uint8 (H, W, 3); None for kinds without pixels to compare.

    Args:
        name: the label.
        predicted, reference: its values, in the format of the codecs.
        counted_HW: bool, the pixels that count for metrics; the others are gray. Default: all.
    """
    kind = label(name).kind
    if kind not in _ERRORS or predicted.shape != reference.shape:
        return None
    error = _ERRORS[kind](predicted, reference) / SCALES[kind][0]
    image = COLORS(np.clip(np.nan_to_num(error, nan=1.0, posinf=1.0), 0, 1), bytes=True)[..., :3]
    if counted_HW is None:
        return np.ascontiguousarray(image)
    if counted_HW.shape != image.shape[:2]:  # one value for each patch
        height, width = counted_HW.shape
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST))
    return np.where(counted_HW[..., None], image, np.uint8(NOT_COUNTED[0]))


def counted_pixels(name: str, samples: Any, index: int) -> np.ndarray:
    """Return the pixels of one of the samples that count for a label, bool (H, W)."""
    kind = label(name).kind
    if kind in ("depth", "normals"):
        return np.asarray(samples.valid[index])
    size = samples.rgb.shape[1:3]
    truth = samples.truth.get(name)
    if kind != "classes" or samples.class_table is None or truth is None:
        return np.ones(size, bool)
    return ~samples.class_table.is_ignored(truth[index])


def comparable(name: str, predicted: Any, samples: Any, relative_depth: bool) -> Any:
    """Return the predictions for all samples as they are scored: depth without a unit is scaled and shifted to the truth."""
    if not relative_depth or label(name).kind != "depth" or name not in samples.truth:
        return predicted
    return aligned_depth(predicted, samples.truth[name], samples.valid)


def _relative(predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
    reference = reference.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.abs(predicted.astype(np.float64) - reference) / reference


def _angle(predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the angle between normals in degrees, float64 (H, W)."""
    cosine = (unit_normals(predicted) * unit_normals(reference)).sum(axis=-1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def _wrong(predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return (predicted != reference).astype(np.float64)


def _unlike(predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return 1 minus the cosine of the features of each patch, float64 (h, w)."""
    first, second = predicted.astype(np.float64), reference.astype(np.float64)
    length = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return 1 - (first * second).sum(axis=-1) / np.maximum(length, 1e-12)


_ERRORS: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "depth": _relative,
    "normals": _angle,
    "classes": _wrong,
    "features": _unlike,
}
