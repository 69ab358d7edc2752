"""Crops: one window, and one choice of mirroring, for all labels of a sample (4M, arXiv 2312.06647, §A.1).

Crop 0 is the whole image: without resizing, a tokenizer then reads the stored values unchanged. The others are random resized
crops. A crop is top, left, height, width in pixels of the image, and flip (0 or 1), as 4M stores it.
"""

# B batch, K crops, H W pixels (h w of a feature map), C channels

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fourfold.configuration import Config
from fourfold.modalities import label
from fourfold.modalities.keypoints import Points, mirrored

GLOBAL_KINDS = ("text", "palette", "metadata", "vector", "embeddings")  # describe the whole image; no crop changes them
NEAREST = ("classes", "depth", "edges")  # kinds whose values must not be averaged
MIN_VISIBLE = 0.3  # share of the area of a box that must be inside the crop


class CropConfig(Config):
    """Crops for pre-tokenizing: crop 0 is the whole image, the others are the random resized crops of 4M."""

    num_crops: int = Field(1, ge=1, le=64)  # of each sample, the whole image included
    min_scale: float = Field(0.8, gt=0, le=1)  # smallest share of the area
    max_ratio: float = Field(4 / 3, ge=1, le=4)  # widest width / height; the narrowest is its inverse
    flip_probability: float = Field(0.0, ge=0, le=1)  # 4M: 0.5; mirrored images contradict "left of" in a caption


def draw_crops(num_samples: int, image_size: tuple[int, int], config: CropConfig, rng: np.random.Generator) -> np.ndarray:
    """Return int32 (num_samples, num_crops, 5): top, left, height, width in pixels of an image of `image_size`, and flip."""
    shape, (rows, columns) = (num_samples, config.num_crops), image_size
    area, ratio = rng.uniform(config.min_scale, 1, shape), np.exp(rng.uniform(-1, 1, shape) * np.log(config.max_ratio))
    height = np.clip(np.rint(np.sqrt(area / ratio) * rows), 1, rows)
    width = np.clip(np.rint(np.sqrt(area * ratio) * columns), 1, columns)
    top, left = np.floor(rng.random(shape) * (rows - height + 1)), np.floor(rng.random(shape) * (columns - width + 1))
    crops = np.stack([top, left, height, width, rng.random(shape) < config.flip_probability], axis=-1).astype(np.int32)
    crops[:, 0] = (0, 0, rows, columns, 0)
    return crops


def crop_values(name: str, values: Any, crops_B5: np.ndarray, image_size: tuple[int, int] | None = None) -> Any:
    """Return the stored values of a label, each cropped and resized to its own size, with the same dtype.

    Class ids, edges and depth take the nearest value (the mean of two depths is a surface that does not exist); other values
    are interpolated. Mirrored normals change the sign of x. Captions, palettes, metadata and global features describe the whole
    image and stay unchanged, as in 4M.

    Args:
        name: the label.
        values: array (B, H, W, ...), or a list of B JSON objects.
        crops_B5: one crop for each value.
        image_size: height and width of the images whose pixels the crops count; default: those of the values.

    Raises:
        ValueError: the values have no pixels and `image_size` is missing, or they are codes of whole masks.
    """
    kind = label(name).kind
    if kind in GLOBAL_KINDS:
        return values
    if image_size is None and not isinstance(values, np.ndarray):
        raise ValueError(f"{name!r} has no pixels; pass the image_size to which its crops refer.")
    rows, columns = image_size or values.shape[1:3]
    if (crops_B5 == (0, 0, rows, columns, 0)).all():
        return values
    shares_B5 = (crops_B5 / (rows, columns, rows, columns, 1)).astype(np.float32)
    if kind in ("boxes", "poses", "keypoints"):
        return [_crop_boxes(value, crop) for value, crop in zip(values, shares_B5, strict=True)]
    if kind == "instances":
        raise ValueError(f"{name!r} cannot be cropped: each of its codes is a whole mask. Set crops.num_crops to 1.")
    cropped = _resample(values, shares_B5, "nearest" if kind in NEAREST else "bilinear")
    if kind == "normals":
        return _mirror_normals(cropped, crops_B5[:, 4] > 0)
    return cropped


def resized(name: str, values: np.ndarray, side: int) -> np.ndarray:
    """Return stored images (B, H, W, ...) of a label as (B, side, side, ...), with the same dtype.

    Class ids, edges and depth take the nearest value, as in `crop_values`; other values are averaged over the area of the new
    pixel. Normals are normalized to unit length again.
    """
    if values.shape[1:3] == (side, side):
        return values
    planes_BCHW, kind = _planes(values), label(name).kind
    if kind in NEAREST:
        resized_BCHW = F.interpolate(planes_BCHW, (side, side), mode="nearest-exact")
    else:
        resized_BCHW = F.interpolate(planes_BCHW, (side, side), mode="bilinear", antialias=True)
    if kind == "normals":
        resized_BCHW = F.normalize(resized_BCHW / 127.5 - 1, dim=1) * 127.5 + 127.5
    return _as_stored(resized_BCHW, values)


def _planes(values: np.ndarray) -> Tensor:
    """Return stored values (B, H, W) or (B, H, W, C) as float32 (B, C, H, W)."""
    planes_BHWC = values[..., None] if values.ndim == 3 else values
    return torch.from_numpy(planes_BHWC.astype(np.float32)).movedim(-1, 1)


def _as_stored(planes_BCHW: Tensor, like: np.ndarray) -> np.ndarray:
    """Return planes of any height and width with the axes and dtype of `like`; the inverse of `_planes`."""
    values = planes_BCHW.movedim(1, -1).numpy().reshape(len(like), *planes_BCHW.shape[2:], *like.shape[3:])
    return (np.rint(values).clip(0, 255) if like.dtype == np.uint8 else values).astype(like.dtype)


def _resample(values: np.ndarray, shares_B5: np.ndarray, mode: str) -> np.ndarray:
    planes_BCHW = _planes(values)
    top, left, height, width, flip = torch.from_numpy(shares_B5).unbind(1)
    rows, columns = planes_BCHW.shape[2:]
    y_BH, x_BW = _coordinates(top, height, rows), _coordinates(left, width, columns)
    x_BW = torch.where(flip[:, None] > 0, x_BW.flip(1), x_BW)
    grid_BHW2 = torch.stack([x_BW[:, None].expand(-1, rows, -1), y_BH[:, :, None].expand(-1, -1, columns)], dim=-1)
    return _as_stored(F.grid_sample(planes_BCHW, grid_BHW2, mode, padding_mode="border", align_corners=False), values)


def _coordinates(first_B: Tensor, extent_B: Tensor, size: int) -> Tensor:
    """Return the coordinates of the pixels of a resized window on one axis, (B, size), for `grid_sample`: -1 to 1.

    They are clamped to the window: values outside have no influence, as if it was cut out before it was resized.
    """
    start_B1, extent_B1 = first_B[:, None] * size, extent_B[:, None] * size
    pixel_BS = start_B1 + (torch.arange(size) + 0.5) * extent_B1 / size - 0.5
    inside_BS = torch.maximum(torch.minimum(pixel_BS, start_B1 + extent_B1 - 1), start_B1)
    return (2 * inside_BS + 1) / size - 1


def _mirror_normals(normals: np.ndarray, flipped_B: np.ndarray) -> np.ndarray:
    normals = normals.copy()
    normals[flipped_B, ..., 0] = 255 - normals[flipped_B, ..., 0]
    return normals


def _crop_boxes(value: dict[str, Any], shares_5: np.ndarray) -> dict[str, Any]:
    top, left, height, width, flip = shares_5.tolist()
    kept = []
    for instance in value["instances"]:
        xmin, ymin, xmax, ymax = instance["box"]
        xs = [min(1.0, max(0.0, (x - left) / width)) for x in (xmin, xmax)]
        ys = [min(1.0, max(0.0, (y - top) / height)) for y in (ymin, ymax)]
        visible = (xs[1] - xs[0]) * width * (ys[1] - ys[0]) * height
        if visible > 0 and visible >= MIN_VISIBLE * (xmax - xmin) * (ymax - ymin):
            xs = [1 - xs[1], 1 - xs[0]] if flip else xs
            cropped = instance | {"box": [xs[0], ys[0], xs[1], ys[1]]}
            kept.append(cropped | {"points": _crop_points(cropped["points"], shares_5)} if "points" in cropped else cropped)
    return {"instances": kept}


def _crop_points(points: Points, shares_5: np.ndarray) -> Points:
    """Return the joints that are inside a crop; in a mirrored one, left and right are exchanged."""
    top, left, height, width, flip = shares_5.tolist()
    kept = {}
    for joint, (x, y) in points.items():
        new_x, new_y = (x - left) / width, (y - top) / height
        if 0 <= new_x <= 1 and 0 <= new_y <= 1:
            kept[mirrored(joint) if flip else joint] = [1 - new_x if flip else new_x, new_y]
    return kept
