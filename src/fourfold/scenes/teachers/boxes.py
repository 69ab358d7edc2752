"""Boxes as maps a convolutional network can learn: objects are peaks of a heat-map, and each cell knows its box's sides.

After "Objects as Points" (arXiv 1904.07850) for the heat-map and its focal loss, and FCOS (arXiv 1904.01355) for the sides:
every cell near an object's center, not the center alone, is taught the distances to the four sides.

Shapes: B batch, K object classes, h, w cells, n boxes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

CORE = 0.3  # cells whose heat is above this are taught the sides


def box_maps(samples: Sequence[dict[str, Any]], classes: Sequence[str], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the heat (B, K, h, w) in [0, 1] and the sides (B, 4, h, w): xmin, ymin, xmax, ymax in 0-1 of the hottest object.

    `samples` are values of the modality `det`. Heat is a Gaussian about the center whose deviation is a sixth of the box's
    side (at least half a cell), and exactly 1 in the cell that holds the center.
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
            mine = blob > hottest
            sides[b][:, mine] = np.array(instance["box"], np.float32)[:, None]
            hottest = np.maximum(hottest, blob)
    return torch.from_numpy(heat), torch.from_numpy(sides)


def cell_centers(h: int, w: int) -> Tensor:
    """Return x, y, x, y of every cell's center in 0-1: (4, h, w), to which sides are relative."""
    y_hw, x_hw = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
    return torch.stack((x_hw, y_hw, x_hw, y_hw))


def box_loss(logits_BKhw: Tensor, offsets_B4hw: Tensor, heat_BKhw: Tensor, sides_B4hw: Tensor) -> Tensor:
    """Return the focal loss of the heat-map (arXiv 1904.07850, eq. 1) plus the L1 of the sides, in cells, near the centers."""
    h, w = heat_BKhw.shape[-2:]
    center = heat_BKhw.eq(1)
    gain = functional.logsigmoid(logits_BKhw) * (1 - logits_BKhw.sigmoid()) ** 2
    pain = functional.logsigmoid(-logits_BKhw) * logits_BKhw.sigmoid() ** 2 * (1 - heat_BKhw) ** 4
    focal = -torch.where(center, gain, pain).sum() / center.sum().clamp(min=1)
    core_B1hw = heat_BKhw.amax(1, keepdim=True) * heat_BKhw.amax(1, keepdim=True).gt(CORE)
    error = (cell_centers(h, w) + offsets_B4hw - sides_B4hw).abs() * torch.tensor([w, h, w, h]).view(4, 1, 1)
    return focal + (error * core_B1hw).sum() / (4 * core_B1hw.sum().clamp(min=1))


def read_boxes(
    logits_BKhw: Tensor, offsets_B4hw: Tensor, classes: Sequence[str], limit: int, minimum: float
) -> list[dict[str, Any]]:
    """Return values of `det`: peaks of 3 × 3 cells over all classes, hottest first, at most `limit`, with a score ≥ `minimum`.

    A peak is one over all classes: two classes never claim the same cell, which takes the place of suppression by overlap.
    """
    B, _, h, w = logits_BKhw.shape
    boxes_B4hw = (cell_centers(h, w) + offsets_B4hw).clamp(0, 1)
    heat_Bhw, class_Bhw = logits_BKhw.sigmoid().max(1)
    peak_Bhw = functional.max_pool2d(heat_Bhw[:, None], 3, 1, 1)[:, 0] == heat_Bhw
    score_Bn, cell_Bn = (heat_Bhw * peak_Bhw).flatten(1).topk(min(limit, h * w))
    box_Bn4 = boxes_B4hw.flatten(2).movedim(1, 2).gather(1, cell_Bn[..., None].expand(-1, -1, 4))
    class_Bn = class_Bhw.flatten(1).gather(1, cell_Bn)
    return [
        {
            "instances": [
                {"box": [round(v, 4) for v in box], "class_name": classes[k], "score": round(score, 4)}
                for score, box, k in zip(score_Bn[b].tolist(), box_Bn4[b].tolist(), class_Bn[b].tolist(), strict=True)
                if score >= minimum and box[2] > box[0] and box[3] > box[1]
            ]
        }
        for b in range(B)
    ]
