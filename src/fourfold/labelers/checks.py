"""Which values a label can have: one check for each kind of modality. A labeler may replace the check of its kind."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fourfold.modalities.class_table import ClassTable
from fourfold.modalities.metadata import METADATA_TYPES

UNIT_TOLERANCE = 0.03  # of the length of a normal stored in 8 bits, or of a vector stored in 16


@dataclass(frozen=True)
class ValueLimits:
    """What a check needs beside the value: limits from the configuration, and the class table of a segmentation."""

    max_depth: float = np.inf  # meters
    class_table: ClassTable | None = None


def find_problem(kind: str, value: Any, limits: ValueLimits) -> str | None:
    """Return what is impossible about a label, as a phrase for an error message; None when nothing is.

    Args:
        kind: the kind of the modality (`fourfold.modalities.Label.kind`); kinds without a check pass.
        value: one label as the codecs decode it.
        limits: the limits that apply.
    """
    check = CHECKS.get(kind)
    return check(value, limits) if check else None


def normal_lengths(normal_HW3: np.ndarray) -> np.ndarray:
    """Return the lengths (H, W) of stored normals uint8 (H, W, 3)."""
    return np.linalg.norm(normal_HW3.astype(np.float32) / 127.5 - 1, axis=-1)


def _depth(depth_HW: np.ndarray, limits: ValueLimits) -> str | None:
    if np.isfinite(depth_HW).all() and depth_HW.min() > 0 and depth_HW.max() <= limits.max_depth:
        return None
    return f"depth from {depth_HW.min()} to {depth_HW.max()} m; allowed: above 0 and at most {limits.max_depth} m"


def _normals(normal_HW3: np.ndarray, limits: ValueLimits) -> str | None:
    deviation = np.abs(normal_lengths(normal_HW3) - 1).max()
    return None if deviation < UNIT_TOLERANCE else f"normals whose length differs from 1 by up to {deviation:.2f}"


def _classes(ids_HW: np.ndarray, limits: ValueLimits) -> str | None:
    if limits.class_table is None:
        return "class ids without a class table; the labeler must declare one"
    try:
        limits.class_table.check_ids(ids_HW)
    except ValueError as error:
        return str(error).rstrip(".")
    return None


def _features(features: np.ndarray, limits: ValueLimits) -> str | None:
    return None if np.isfinite(features).all() else "features that are not finite"


def _vector(vector_C: np.ndarray, limits: ValueLimits) -> str | None:
    length = float(np.linalg.norm(vector_C.astype(np.float32)))
    return None if abs(length - 1) < UNIT_TOLERANCE else f"a vector of length {length:.3f}; allowed: unit length"


def _edges(edges_HW: np.ndarray, limits: ValueLimits) -> str | None:
    return None if np.isin(edges_HW, (0, 255)).all() else "edge values other than 0 and 255"


def _palettes(palettes: dict[str, list[list[int]]], limits: ValueLimits) -> str | None:
    for size, colors in palettes.items():
        if size != str(len(colors)):
            return f"palette {size!r} with {len(colors)} colors"
        if any(len(color) != 3 or not all(0 <= level <= 255 for level in color) for color in colors):
            return f"palette {size!r} with a color that is not three levels from 0 to 255"
    return None


def _metadata(values: dict[str, float], limits: ValueLimits) -> str | None:
    if unknown := sorted(values.keys() - METADATA_TYPES.keys()):
        return f"unknown types of metadata: {', '.join(unknown)}"
    return None if np.isfinite(list(values.values())).all() else "metadata that are not finite"


CHECKS: dict[str, Callable[[Any, ValueLimits], str | None]] = {
    "depth": _depth,
    "normals": _normals,
    "classes": _classes,
    "features": _features,
    "vector": _vector,
    "edges": _edges,
    "palette": _palettes,
    "metadata": _metadata,
}
