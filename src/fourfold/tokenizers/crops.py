"""Crops: the same window, and the same mirroring, applied to every label of a sample (4M §A.1).

Crop 0 is the whole image, so a tokenizer at the image's own size sees the stored values untouched; further crops are random
resized crops. A crop is top, left, height, width as shares of the image, and flip (0 or 1).
"""

# B batch, H W pixels (h w of a feature map), C channels

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fourfold.modalities import label
from fourfold.tokenizers.config import CropConfig

WHOLE = (0.0, 0.0, 1.0, 1.0, 0.0)
OF_THE_WHOLE = ("text", "palette", "metadata", "vector", "embeddings")  # kinds of labels that no crop changes
MIN_VISIBLE = 0.3  # share of a box that must lie in the crop


def draw_crops(num_samples: int, config: CropConfig, rng: np.random.Generator) -> np.ndarray:
    """Return float32 (num_samples, num_crops, 5): top, left, height, width, flip."""
    shape = (num_samples, config.num_crops)
    area, ratio = rng.uniform(config.min_scale, 1, shape), np.exp(rng.uniform(-1, 1, shape) * np.log(config.max_ratio))
    height, width = np.minimum(1, np.sqrt(area / ratio)), np.minimum(1, np.sqrt(area * ratio))
    top, left = rng.random(shape) * (1 - height), rng.random(shape) * (1 - width)
    crops = np.stack([top, left, height, width, rng.random(shape) < config.flip_probability], axis=-1).astype(np.float32)
    crops[:, 0] = WHOLE
    return crops


def crop_values(name: str, values: Any, crops_B5: np.ndarray) -> Any:
    """Return the stored values (B, ...) of label `name` as seen through a crop each, same size and dtype.

    Class ids, edges and depth take the nearest value (a mean of two depths is a surface that is not there), the rest is
    interpolated; mirrored normals change the sign of x. What is said of the whole image (captions, palettes, metadata, global
    features) stays as it is, as in 4M.
    """
    kind = label(name).kind
    if kind in OF_THE_WHOLE or (crops_B5 == np.asarray(WHOLE, dtype=np.float32)).all():
        return values
    if kind in ("boxes", "poses"):
        return [_crop_boxes(value, crop) for value, crop in zip(values, crops_B5, strict=True)]
    if kind == "instances":
        raise ValueError(f"{name!r} cannot be cropped: its codes stand for whole masks. Set crops.num_crops to 1.")
    cropped = _resample(values, crops_B5, "nearest" if kind in ("classes", "depth", "edges") else "bilinear")
    if kind == "normals":
        return _mirror_normals(cropped, crops_B5[:, 4] > 0)
    return cropped


def _resample(values: np.ndarray, crops_B5: np.ndarray, mode: str) -> np.ndarray:
    planes_BHWC = values[..., None] if values.ndim == 3 else values
    planes_BCHW = torch.from_numpy(planes_BHWC.astype(np.float32)).permute(0, 3, 1, 2)
    top, left, height, width, flip = torch.from_numpy(crops_B5).unbind(1)
    across, down = 1 - 2 * flip, torch.zeros_like(top)
    theta_B23 = torch.stack(
        [torch.stack([width * across, down, 2 * left + width - 1], 1), torch.stack([down, height, 2 * top + height - 1], 1)], 1
    )
    places_BHW2 = F.affine_grid(theta_B23, list(planes_BCHW.shape), align_corners=False)
    seen_BCHW = F.grid_sample(planes_BCHW, places_BHW2, mode, padding_mode="border", align_corners=False)
    seen = seen_BCHW.permute(0, 2, 3, 1).numpy().reshape(values.shape)
    return (np.rint(seen) if values.dtype == np.uint8 else seen).astype(values.dtype)


def _mirror_normals(normals: np.ndarray, flipped_B: np.ndarray) -> np.ndarray:
    normals = normals.copy()
    normals[flipped_B, ..., 0] = 255 - normals[flipped_B, ..., 0]
    return normals


def _crop_boxes(value: dict[str, Any], crop_5: np.ndarray) -> dict[str, Any]:
    top, left, height, width, flip = crop_5.tolist()
    kept = []
    for instance in value["instances"]:
        xmin, ymin, xmax, ymax = instance["box"]
        xs = [min(1.0, max(0.0, (x - left) / width)) for x in (xmin, xmax)]
        ys = [min(1.0, max(0.0, (y - top) / height)) for y in (ymin, ymax)]
        visible = (xs[1] - xs[0]) * width * (ys[1] - ys[0]) * height
        if visible > 0 and visible >= MIN_VISIBLE * (xmax - xmin) * (ymax - ymin):
            xs = [1 - xs[1], 1 - xs[0]] if flip else xs
            kept.append(instance | {"box": [xs[0], ys[0], xs[1], ys[1]]})
    return {"instances": kept}
