"""Grayscale PNG and TIFF of 8 or 16 bits, read with Pillow: one file for each slice."""

# H rows, W columns

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fourfold.medical.scans import Grid, ReadingLimits, Scan, Unreadable

ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
FORMATS = ("PNG", "TIFF", "JPEG")
WIDE = ("I", "I;16", "I;16B", "I;16L", "I;16N")
NUMBER = re.compile(r"(\d+)")


def read_pictures(paths: Sequence[Path], limits: ReadingLimits) -> Scan:
    """Return a scan with a slice for each file, in the natural order of their names: 2 before 10.

    A file that cannot be used becomes the reason, so that the others keep their numbers.
    """
    slices: list[np.ndarray | str] = []
    is_wide, total = False, 0
    for path in sorted(paths, key=natural):
        try:
            found, wide = _read(path, limits)
            total += found.size
            limits.check_voxels(total)
            slices.append(found)
            is_wide |= wide
        except Unreadable as reason:
            slices.append(str(reason))
        except MemoryError:
            raise
        except Exception as error:  # decoders raise all kinds of errors for hostile bytes
            slices.append(f"image unreadable ({type(error).__name__})")
    shapes = tuple((0, 0) if isinstance(one, str) else (one.shape[0], one.shape[1]) for one in slices)
    return Scan(slices, Grid(shapes), windows=[None] * len(slices), bits=None if is_wide else 8)


def natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts names by the numbers in them."""
    parts = NUMBER.split(path.as_posix())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.as_posix()


def _read(path: Path, limits: ReadingLimits) -> tuple[np.ndarray, bool]:
    """Return the gray values float32 (H, W) of a file, and whether they have more than 8 bits."""
    with path.open("rb") as file:
        content = file.read(limits.max_file_bytes + 1)
    if len(content) > limits.max_file_bytes:
        raise Unreadable("file is too large (max_file_bytes)")
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        limits.check_voxels(*image.size)
        if image.mode in WIDE:
            return np.asarray(image).astype(np.float32), True
        if image.mode in ("1", "L"):
            return np.asarray(image.convert("L")).astype(np.float32), False
        if image.mode not in ("RGB", "LA", "RGBA", "P"):
            raise Unreadable("image is not grayscale of 8 or 16 bits")
        colors_HW3 = np.asarray(image.convert("RGB"))
    if not (colors_HW3 == colors_HW3[..., :1]).all():
        raise Unreadable("image has colors; grayscale is read")
    return colors_HW3[..., 0].astype(np.float32), False
