"""Boxes in the stored format: relative to the image, best first."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fourfold.metrics.boxes import box_iou

DECIMALS = 6


def boxes_of(
    boxes_N4: Sequence[Sequence[float]], names_N: Sequence[str], scores_N: Sequence[float], max_boxes: int
) -> dict[str, Any]:
    """Return the stored form of the boxes of one image, those with the highest scores first.

    Args:
        boxes_N4: xmin, ymin, xmax, ymax as shares of the image; clipped to 0-1. What is then empty is left out.
        names_N: names of their classes.
        scores_N: 0-1.
        max_boxes: how many are kept.
    """
    instances = []
    for box, name, score in sorted(zip(boxes_N4, names_N, scores_N, strict=True), key=lambda found: -found[2]):
        xmin, ymin, xmax, ymax = (round(min(max(float(side), 0.0), 1.0), DECIMALS) for side in box)
        if xmin < xmax and ymin < ymax:
            instances.append({"box": [xmin, ymin, xmax, ymax], "class_name": name, "score": round(float(score), DECIMALS)})
    return {"instances": instances[:max_boxes]}


def non_maximum_suppression(boxes_N4: np.ndarray, scores_N: np.ndarray, max_overlap: float) -> np.ndarray:
    """Return the indices of the boxes that no box with a higher score covers by more than `max_overlap` (IoU), best first."""
    waiting, kept = np.argsort(-scores_N, kind="stable"), []
    while waiting.size:
        kept.append(waiting[0])
        best, waiting = waiting[:1], waiting[1:]
        waiting = waiting[box_iou(boxes_N4[best], boxes_N4[waiting])[0] <= max_overlap]
    return np.array(kept, dtype=np.int64)
