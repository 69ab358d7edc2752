"""Boxes: average precision at IoU 0.5 as COCO computes it (101 recall points, greedy matching by score).

Lin et al. 2014, arXiv 1405.0312. The statistic is our own because the libraries return a number per data set: for a bootstrap
interval of 1,000 images with 1,000 replicates, faster-coco-eval would take 590 s and this module takes 1.7 s
(`python benchmarks/bootstrap.py`, one core). The tests compare the values with faster-coco-eval.
"""

# N images, D detections (sorted by score), R weightings, T boxes of the truth, K classes

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fourfold.metrics.statistics import Statistic, value

RECALL_POINTS = np.linspace(0, 1, 101)
MAX_DETECTIONS = 100  # per image and class, as in COCO


def box_iou(first_DB: np.ndarray, second_TB: np.ndarray, crowd_T: np.ndarray | None = None, pixel: float = 0.0) -> np.ndarray:
    """Return the IoU (D, T), in the float type of the boxes; with a crowd, the share of the first box that it covers.

    Args:
        first_DB, second_TB: boxes (D, 4) and (T, 4) as xmin, ymin, xmax, ymax in any one unit.
        crowd_T: bool, the second boxes that surround many objects (COCO); None: no crowds.
        pixel: 1 if the last pixel belongs to a box, as in the original VOC code.
    """
    low = np.maximum(first_DB[:, None, :2], second_TB[None, :, :2])
    high = np.minimum(first_DB[:, None, 2:], second_TB[None, :, 2:])
    overlap = np.prod(np.clip(high - low + pixel, 0, None), axis=-1)
    area = np.prod(np.clip(first_DB[:, 2:] - first_DB[:, :2] + pixel, 0, None), axis=-1)[:, None]
    other = np.prod(np.clip(second_TB[:, 2:] - second_TB[:, :2] + pixel, 0, None), axis=-1)[None]
    union = area + other - overlap
    if crowd_T is not None:
        union = np.where(crowd_T[None], area, union)
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


@dataclass(frozen=True)
class _ClassDetections:
    """Detections of one class in all images, best score first, and the number of boxes of the truth in each image."""

    image: np.ndarray  # (D,) index of the image
    hit: np.ndarray  # (D,) 1 where it matched a box of the truth
    truths: np.ndarray  # (N,)

    def average_precision(self, weights_RN: np.ndarray) -> np.ndarray:
        """Return AP (R,); NaN where the weighted images have no box of this class."""
        weight_RD = weights_RN[:, self.image]
        hits_RD = np.cumsum(weight_RD * self.hit, axis=1)
        seen_RD = np.cumsum(weight_RD, axis=1)
        truths_R1 = (weights_RN @ self.truths)[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            recall_RD = hits_RD / truths_R1
            precision_RD = np.where(seen_RD > 0, hits_RD / np.maximum(seen_RD, 1e-12), 0.0)
        envelope_RD = np.maximum.accumulate(precision_RD[:, ::-1], axis=1)[:, ::-1]
        result_R = np.array([_interpolated(*pair) for pair in zip(recall_RD, envelope_RD, strict=True)])
        return np.where(truths_R1[:, 0] > 0, result_R, np.nan)


@dataclass(frozen=True)
class AveragePrecision:
    """AP at one IoU threshold: the mean over classes that occur in the truth."""

    classes: tuple[_ClassDetections, ...]
    num_samples: int

    def weighted(self, weights_RN: np.ndarray) -> np.ndarray:
        """Return AP (R,) under R weightings of the images; NaN without any box in the truth."""
        if not self.classes:
            return np.full(len(weights_RN), np.nan)
        each_KR = np.stack([c.average_precision(weights_RN) for c in self.classes])
        present_KR = np.isfinite(each_KR)
        with np.errstate(invalid="ignore"):
            return np.where(present_KR, each_KR, 0).sum(0) / present_KR.sum(0)


def average_precision_statistic(predictions: Sequence[dict], truths: Sequence[dict], iou: float = 0.5) -> Statistic:
    """Return AP of boxes as a statistic over images.

    Args:
        predictions, truths: one `{"instances": [{"box": [xmin, ymin, xmax, ymax], "class_name": str, "score": float}]}`
            per image; a missing score counts as 1.
        iou: the minimum IoU of a match.

    Raises:
        ValueError: the numbers of predictions and of images differ.
    """
    if len(predictions) != len(truths):
        raise ValueError(
            f"{len(predictions)} predictions for {len(truths)} images. "
            "Give one for each image, with an empty list of instances where there are none."
        )
    names = sorted({i["class_name"] for t in truths for i in t["instances"]})
    return AveragePrecision(tuple(_matched(predictions, truths, name, iou) for name in names), len(truths))


def average_precision_50(predictions: Sequence[dict], truths: Sequence[dict]) -> float:
    """Return COCO's AP at IoU 0.5, the mean over classes, 0 to 1; NaN without any box in the truth."""
    return value(average_precision_statistic(predictions, truths))


def _matched(predictions: Sequence[dict], truths: Sequence[dict], name: str, iou: float) -> _ClassDetections:
    image, hit, score, counts = [], [], [], []
    for index, (predicted, truth) in enumerate(zip(predictions, truths, strict=True)):
        detections = [i for i in predicted["instances"] if i["class_name"] == name]
        detections = sorted(detections, key=lambda i: -i.get("score", 1.0))[:MAX_DETECTIONS]
        boxes = [i for i in truth["instances"] if i["class_name"] == name]
        counts.append(len(boxes))
        hit += _greedy_hits(detections, boxes, iou)
        score += [i.get("score", 1.0) for i in detections]
        image += [index] * len(detections)
    order = np.argsort(-np.array(score, dtype=np.float64), kind="stable")
    return _ClassDetections(
        np.array(image, dtype=np.int64)[order], np.array(hit, dtype=np.float64)[order], np.array(counts, float)
    )


def _greedy_hits(detections: list[dict], boxes: list[dict], iou: float) -> list[bool]:
    """Match each detection, best first, with the unmatched box of the truth that it overlaps most."""
    if not detections or not boxes:
        return [False] * len(detections)
    overlap_DT = box_iou(np.array([i["box"] for i in detections], float), np.array([i["box"] for i in boxes], float))
    hits = []
    for row in overlap_DT:
        best = int(row.argmax())
        hits.append(bool(row[best] >= iou))
        if hits[-1]:
            overlap_DT[:, best] = -1
    return hits


def _interpolated(recall_D: np.ndarray, precision_D: np.ndarray) -> float:
    index = np.searchsorted(recall_D, RECALL_POINTS - 1e-12, side="left")
    return float(np.append(precision_D, 0.0)[np.minimum(index, len(precision_D))].mean())
