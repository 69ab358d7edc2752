"""Boxes as maps that a convolutional network can learn: peaks of a heat map, and the sides of the box in every cell.

The heat map and its focal loss follow "Objects as Points" (arXiv 1904.07850); the sides follow FCOS (arXiv 1904.01355):
every cell near an object's center, not only the center, learns the distances to the four sides.

Shapes: B batch, K object classes, h, w cells, n boxes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

MIN_HEAT = 0.3  # cells with a higher heat learn the sides


def box_maps(samples: Sequence[dict[str, Any]], classes: Sequence[str], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the training targets of some samples.

    Args:
        samples: values of the modality `det`.
        classes: names of the object classes; the index is the channel of the heat map.
        size: rows and columns of the maps.

    Returns:
        Heat (B, K, h, w) in [0, 1]: a Gaussian around the center whose standard deviation is a sixth of the box's side (at
        least half a cell), and exactly 1 in the cell that contains the center. Sides (B, 4, h, w): xmin, ymin, xmax, ymax
        in 0-1 of the object with the highest heat.
    """
    h, w = size
    heat = np.zeros((len(samples), len(classes), h, w), np.float32)
    sides = np.zeros((len(samples), 4, h, w), np.float32)
    y_hw, x_hw = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w, indexing="ij")
    for b, sample in enumerate(samples):
        hottest = np.zeros((h, w), np.float32)
        for instance in sample["instances"]:
            xmin, ymin, xmax, ymax = instance["box"]
            x, y = (xmin + xmax) / 2, (ymin + ymax) / 2
            spread_x, spread_y = max((xmax - xmin) / 6, 0.5 / w), max((ymax - ymin) / 6, 0.5 / h)
            blob = np.exp(-((x_hw - x) ** 2) / (2 * spread_x**2) - (y_hw - y) ** 2 / (2 * spread_y**2)).astype(np.float32)
            blob[min(int(y * h), h - 1), min(int(x * w), w - 1)] = 1
            k = classes.index(instance["class_name"])
            heat[b, k] = np.maximum(heat[b, k], blob)
            is_hottest = blob > hottest
            sides[b][:, is_hottest] = np.array(instance["box"], np.float32)[:, None]
            hottest = np.maximum(hottest, blob)
    return torch.from_numpy(heat), torch.from_numpy(sides)


def cell_centers(h: int, w: int) -> Tensor:
    """Return x, y, x, y of every cell's center in 0-1, (4, h, w): predicted sides are relative to them."""
    y_hw, x_hw = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
    return torch.stack((x_hw, y_hw, x_hw, y_hw))


def box_loss(logits_BKhw: Tensor, offsets_B4hw: Tensor, heat_BKhw: Tensor, sides_B4hw: Tensor) -> Tensor:
    """Return the focal loss of the heat map (arXiv 1904.07850, eq. 1) plus the L1 loss of the sides, in cells, near centers."""
    h, w = heat_BKhw.shape[-2:]
    center = heat_BKhw.eq(1)
    positive_term = functional.logsigmoid(logits_BKhw) * (1 - logits_BKhw.sigmoid()) ** 2
    negative_term = functional.logsigmoid(-logits_BKhw) * logits_BKhw.sigmoid() ** 2 * (1 - heat_BKhw) ** 4
    focal = -torch.where(center, positive_term, negative_term).sum() / center.sum().clamp(min=1)
    near_B1hw = heat_BKhw.amax(1, keepdim=True) * heat_BKhw.amax(1, keepdim=True).gt(MIN_HEAT)
    error = (cell_centers(h, w) + offsets_B4hw - sides_B4hw).abs() * torch.tensor([w, h, w, h]).view(4, 1, 1)
    return focal + (error * near_B1hw).sum() / (4 * near_B1hw.sum().clamp(min=1))


def decode_boxes(
    logits_BKhw: Tensor, offsets_B4hw: Tensor, classes: Sequence[str], max_boxes: int, min_score: float
) -> list[dict[str, Any]]:
    """Return values of `det`: the peaks among 3 × 3 cells, highest score first.

    Peaks are taken over all classes, so a cell has at most one box; this replaces non-maximum suppression.

    Args:
        logits_BKhw: the heat map before the sigmoid.
        offsets_B4hw: sides relative to `cell_centers`.
        classes: names of the object classes.
        max_boxes: most boxes of one image.
        min_score: boxes with a lower score are left out.
    """
    B, _, h, w = logits_BKhw.shape
    boxes_B4hw = (cell_centers(h, w) + offsets_B4hw).clamp(0, 1)
    heat_Bhw, class_Bhw = logits_BKhw.sigmoid().max(1)
    peak_Bhw = functional.max_pool2d(heat_Bhw[:, None], 3, 1, 1)[:, 0] == heat_Bhw
    score_Bn, cell_Bn = (heat_Bhw * peak_Bhw).flatten(1).topk(min(max_boxes, h * w))
    box_Bn4 = boxes_B4hw.flatten(2).movedim(1, 2).gather(1, cell_Bn[..., None].expand(-1, -1, 4))
    class_Bn = class_Bhw.flatten(1).gather(1, cell_Bn)
    return [
        {
            "instances": [
                {"box": [round(v, 4) for v in box], "class_name": classes[k], "score": round(score, 4)}
                for score, box, k in zip(score_Bn[b].tolist(), box_Bn4[b].tolist(), class_Bn[b].tolist(), strict=True)
                if score >= min_score and box[2] > box[0] and box[3] > box[1]
            ]
        }
        for b in range(B)
    ]
