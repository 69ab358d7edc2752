"""Sparse depth, as LiDAR measures it, as a partial input: tokens where there are enough measurements, nothing elsewhere.

A tokenizer needs depth at every pixel. Pixels without a measurement take the value of the nearest one; then the tokens of those
patches are kept in which enough pixels were measured, and the model fills in the others (4M, arXiv 2312.06647, §4: partial
inputs).
"""

# B samples, H W pixels of a map, S side of the model's images, h w of its tokens, L = h · w

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.conditions import MISSING
from fourfold.tokenizers.formats import DepthFormat

KITTI_UNITS = 256  # of a 16-bit PNG, per meter (KITTI's development kit for depth; Uhrig et al. 2017, arXiv 1708.06500)
WIDE = ("I;16", "I;16B", "I;16L", "I;16N", "I")  # modes of Pillow for 16 bits
MIN_MEASURED = 0.25  # share of the pixels of a patch


def read_kitti_depth(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Return meters float32 (H, W), 0 where nothing was measured, of a 16-bit PNG in units of 1/256 m.

    Args:
        path: of the file.
        size: height and width that it must have, those of the image.

    Raises:
        ValueError: the file is no such PNG, or has another size.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            mode = image.mode
            values_HW = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "it is no PNG, or is damaged"
        raise ValueError(f"{path} cannot be read as depth: {reason}. Give a 16-bit PNG, as KITTI stores depth.") from error
    if mode not in WIDE:
        raise ValueError(
            f"{path} has the mode {mode}; depth needs 16 bits in units of 1/256 m, 0 where nothing was measured. Convert it."
        )
    if size is not None and values_HW.shape != tuple(size):
        found, wanted = (" x ".join(map(str, shape)) for shape in (values_HW.shape, size))
        raise ValueError(f"{path} has {found} pixels; its image has {wanted}, and both must be equal. Correct it.")
    return values_HW.astype(np.float32) / KITTI_UNITS


def check_sparse_depth(model: AnyToAny) -> None:
    """Raise ValueError if a model cannot use sparse depth."""
    if reason := model.lacks("depth", "depth"):
        raise ValueError(f"Sparse depth cannot be used: {reason}. Leave it out, or give another model.")
    if model.has_relative_depth:
        raise ValueError(
            "Sparse depth needs meters, and the depth of this model has no unit. Leave it out, or give another model."
        )


def sparse_depth_tokens(model: AnyToAny, maps: Sequence[np.ndarray], min_measured: float = MIN_MEASURED) -> np.ndarray:
    """Return ids int64 (B, L) of `tok_depth`, MISSING where a patch has too few measurements, for `AnyToAny.predict`.

    Args:
        model: a model with a tokenizer of depth in meters.
        maps: of each sample, meters (H, W), 0 where nothing was measured; of the part of an image that the model sees.
        min_measured: share of the pixels of a patch, at the model's size, that need a measurement: above 0 to 1.

    Raises:
        ValueError: the model cannot use it, or a value is out of range.
    """
    check_sparse_depth(model)
    if not 0 < min_measured <= 1:
        raise ValueError(f"min_measured is {min_measured}; allowed: above 0 to 1. Correct it.")
    for depth_HW in maps:
        if not np.isfinite(depth_HW).all() or depth_HW.min() < 0:
            raise ValueError(
                "Sparse depth has negative values or values that are not finite; allowed: meters, 0 for none. Correct it."
            )
    rows, columns = model.model.config.modality(model.target_name("depth")).grid or (1, 1)
    side = model.image_side("rgb")
    reduced_BSS = np.stack([reduced(depth_HW, side) for depth_HW in maps])
    measured_Bhw = (reduced_BSS > 0).reshape(-1, rows, side // rows, columns, side // columns).mean(axis=(2, 4))
    tokens_BL = np.full((len(maps), rows * columns), MISSING, np.int64)
    is_given_BL = (measured_Bhw >= min_measured).reshape(tokens_BL.shape)
    given = np.flatnonzero(is_given_BL.any(axis=1))
    if given.size:
        complete_BSS = np.clip(np.stack([filled(reduced_BSS[index]) for index in given]), *_known_range(model))
        found_BL = model.target_tokens("depth", complete_BSS).flatten(1).numpy()
        tokens_BL[given] = np.where(is_given_BL[given], found_BL, MISSING)
    return tokens_BL


def _known_range(model: AnyToAny) -> tuple[float, float]:
    """Return the shortest and the longest depth that the tokenizer has learned: of others, its tokens mean nothing."""
    values_format = model.tokenizers.visual["depth"].format
    assert isinstance(values_format, DepthFormat)
    near, far = (float(np.exp(values_format.statistics[name][0])) for name in ("lowest", "highest"))
    return near, far


def reduced(depth_HW: np.ndarray, side: int) -> np.ndarray:
    """Return sparse depth float32 (S, S): the geometric mean of the measurements in each pixel, 0 without any.

    The geometric mean, because tokenizers see logarithms.
    """
    for axis, length in enumerate(depth_HW.shape):
        depth_HW = depth_HW.repeat(-(-side // length), axis)  # of a smaller map, each pixel becomes several
    height, width = depth_HW.shape
    rows, columns = np.nonzero(depth_HW)
    place = rows * side // height * side + columns * side // width
    count = np.bincount(place, minlength=side * side)
    total = np.bincount(place, np.log(depth_HW[rows, columns].astype(np.float64)), minlength=side * side)
    mean = np.where(count > 0, np.exp(total / np.maximum(count, 1)), 0)
    return mean.reshape(side, side).astype(np.float32)


def filled(depth_HW: np.ndarray) -> np.ndarray:
    """Return depth in which each 0 has the value of the nearest pixel that is not 0; at least one must be."""
    rows, columns = distance_transform_edt(depth_HW == 0, return_distances=False, return_indices=True)
    return depth_HW[rows, columns]
