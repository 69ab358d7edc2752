"""Reading of files in official layouts; a damaged or missing file is an error that names it."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def read_rgb(path: Path) -> np.ndarray:
    """Return an image file as uint8 (H, W, 3); gray, CMYK and palette images are converted.

    Raises:
        ValueError: the file is absent or no image.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise _damaged(path, "an image", error) from error


def read_ids(path: Path) -> np.ndarray:
    """Return a PNG of numbers as (H, W): palette images as indices, 16-bit ones as they are.

    Raises:
        ValueError: the file is absent, no image, or has colors.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "I", "I;16", "1"):
                raise ValueError(f"{path} has mode {image.mode}; expected one number per pixel. Use the official file.")
            return np.asarray(image).astype(np.int64)
    except OSError as error:
        raise _damaged(path, "an image", error) from error


def read_json_file(path: Path) -> Any:
    """Return the content of a JSON file; raises ValueError if it is absent or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, "JSON", error) from error


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file without those that are empty; raises ValueError if it is absent."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(path, "text", error) from error


def by_image(annotations: Iterable[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """Return annotations of COCO by the id of their image, in their order."""
    grouped: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in annotations:
        grouped[annotation["image_id"]].append(annotation)
    return grouped


def same_size(value_HW: np.ndarray, rgb_HW3: np.ndarray, path: Path) -> np.ndarray:
    """Return a label; raises ValueError if its size is not that of the image."""
    if value_HW.shape[:2] != rgb_HW3.shape[:2]:
        raise ValueError(
            f"{path} has {value_HW.shape[0]} x {value_HW.shape[1]} pixels, its image {rgb_HW3.shape[0]} x {rgb_HW3.shape[1]}. "
            "They must be equal; use the official files."
        )
    return value_HW


def _damaged(path: Path, kind: str, error: Exception) -> ValueError:
    reason = "it does not exist" if isinstance(error, FileNotFoundError) else str(error)
    return ValueError(f"{path} cannot be read as {kind}: {reason}. Download it again.")
