"""Units of conditions: values of users, checked and converted to those that the model and the tokenizers take."""

# B samples, H W image height and width

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fourfold.modalities import IMAGENET_MEAN, IMAGENET_STD, label

BYTE = 255
MISSING_PIXEL = -1  # marks patches that are not given, in signed integers


def pixels(name: str, values: Any) -> Tensor:
    """Return images (B, H, W, 3) as the model reads them.

    Args:
        name: the condition, for messages.
        values: uint8 or other integers 0-255 (-1 where nothing is given), or floats 0-1.

    Returns:
        uint8; int16 of other integers; float32 standardized by ImageNet's statistics of floats.

    Raises:
        ValueError: a value is out of range.
    """
    array = as_array(values)
    if array.dtype.kind == "f":
        _check_range(name, array, 0, 1, f"floats from 0 to 1, or uint8 from 0 to {BYTE}")
        mean_C, deviation_C = (np.asarray(row, dtype=np.float32) for row in (IMAGENET_MEAN, IMAGENET_STD))
        return torch.from_numpy((array.astype(np.float32) - mean_C) / deviation_C)
    if array.dtype != np.uint8:
        _check_range(name, array, MISSING_PIXEL, BYTE, f"integers from 0 to {BYTE}, or floats from 0 to 1")
        array = array.astype(np.int16)
    return torch.from_numpy(np.ascontiguousarray(array))


def stored(name: str, values: Any, is_metric: bool = True) -> Any:
    """Return the values of a label in the dtype of the shards; texts and dicts unchanged.

    Images may be uint8 or floats 0-1, normals uint8 or floats from -1 to 1, class ids any integers.

    Args:
        name: the label.
        values: for all samples.
        is_metric: whether depth must be in meters, so that integers are an error.

    Raises:
        ValueError: a value is out of range, or not a number.
    """
    kind = label(name).kind
    if kind not in ("image", "normals", "edges", "classes", "depth"):
        return values
    array = as_array(values)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"Condition {name!r} has the type {array.dtype}; it must be numbers.")
    if kind == "depth":
        if is_metric and array.dtype.kind != "f":
            raise ValueError(f"Condition {name!r} has the type {array.dtype}; this model needs meters as floats. Convert it.")
        return array
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "f" and kind in ("image", "normals", "edges"):
        low = -1 if kind == "normals" else 0
        _check_range(name, array, low, 1, f"floats from {low} to 1, or uint8 from 0 to {BYTE}")
        return np.round((array.astype(np.float64) - low) * BYTE / (1 - low)).astype(np.uint8)
    if (array != np.floor(array)).any():
        raise ValueError(f"Condition {name!r} has fractions; class ids must be integers from 0 to {BYTE}.")
    _check_range(name, array, 0, BYTE, f"integers from 0 to {BYTE}")
    return array.astype(np.uint8)


def as_array(values: Any) -> np.ndarray:
    """Return numbers of any container, e.g. a tensor, as an array."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _check_range(name: str, array: np.ndarray, low: float, high: float, allowed: str) -> None:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"Condition {name!r} has the type {array.dtype}; allowed: {allowed}.")
    if array.size and not (array.min() >= low and array.max() <= high):  # also if there is NaN
        raise ValueError(f"Condition {name!r} has values from {array.min():g} to {array.max():g}; allowed: {allowed}.")
