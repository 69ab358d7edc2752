"""How labels of several teachers become one."""

# T teachers, H, W pixels, N boxes, K classes

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fourfold.metrics.boxes import box_iou

AGREEING = 1.25  # ratio of two depths up to which they agree: the usual first threshold of depth metrics
TINY = 1e-9  # 1/meters
TRIM = 0.2  # share of the pixels with the largest errors that a fit leaves out


def aligned(inverse_HW: np.ndarray, reference_HW: np.ndarray) -> np.ndarray:
    """Return inverse depth scaled and shifted to a reference: by medians, then by least squares over the better pixels.

    Networks of relative depth agree up to scale and shift of the inverse depth (MiDaS, arXiv 1907.01341, section 5). What would
    be behind the horizon becomes the reference's smallest value.
    """
    x_P, y_P = inverse_HW.ravel().astype(np.float64), reference_HW.ravel().astype(np.float64)
    spread_x, spread_y = (np.median(np.abs(values - np.median(values))) for values in (x_P, y_P))
    scale = spread_y / spread_x if spread_x > 0 else 0.0
    shift = np.median(y_P) - scale * np.median(x_P)
    for _ in range(2):
        error_P = np.abs(scale * x_P + shift - y_P)
        kept_P = error_P <= np.quantile(error_P, 1 - TRIM)
        scale, shift = _line(x_P[kept_P], y_P[kept_P])
    return np.maximum(scale * inverse_HW + shift, reference_HW.min()).astype(np.float32)


def _line(x_P: np.ndarray, y_P: np.ndarray) -> tuple[float, float]:
    """Return slope and intercept of the line that fits best; a constant x gives the mean of y."""
    variance = x_P.var()
    slope = float(((x_P - x_P.mean()) * (y_P - y_P.mean())).mean() / variance) if variance > 0 else 0.0
    return slope, float(y_P.mean() - slope * x_P.mean())


def fuse_depths(depths_THW: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """Return the median of depths in meters (H, W), after all are aligned with the first in scale and shift of 1/depth.

    Also returns the share of pixels in which all of them are within 25 % of it.
    """
    inverse_THW = [1 / np.asarray(depth_HW, np.float32) for depth_HW in depths_THW]
    aligned_THW = np.stack([inverse_THW[0], *(aligned(inverse_HW, inverse_THW[0]) for inverse_HW in inverse_THW[1:])])
    median_HW = np.median(aligned_THW, axis=0)
    ratio_HW = np.maximum(aligned_THW / median_HW, median_HW / np.maximum(aligned_THW, TINY)).max(0)
    return 1 / median_HW, float((ratio_HW < AGREEING).mean())


def vote(ids_THW: Sequence[np.ndarray], weights_T: Sequence[float], num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the class ids with the most votes (H, W) and the share of all weights that voted for them (H, W).

    Ids outside of the classes abstain. Of equal votes the one of the first teacher counts.
    """
    votes_KHW = np.zeros((num_classes, *ids_THW[0].shape), np.float32)
    for ids_HW, weight in zip(ids_THW, weights_T, strict=True):
        rows, columns = np.nonzero(ids_HW < num_classes)
        votes_KHW[ids_HW[rows, columns], rows, columns] += weight
    best_HW = votes_KHW.max(0)
    winner_HW = votes_KHW.argmax(0)
    first_HW = np.minimum(ids_THW[0], num_classes - 1).astype(np.int64)
    is_first_HW = (ids_THW[0] < num_classes) & (np.take_along_axis(votes_KHW, first_HW[None], 0)[0] >= best_HW)
    return np.where(is_first_HW, ids_THW[0], winner_HW).astype(np.uint8), best_HW / np.float32(sum(weights_T))


@dataclass
class _Cluster:
    """Boxes that show the same object."""

    boxes: list[np.ndarray] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)

    @property
    def box(self) -> np.ndarray:
        """The mean of the boxes, weighted by score."""
        return np.average(self.boxes, axis=0, weights=self.scores)


def fuse_boxes(
    instances_T: Sequence[Sequence[dict[str, Any]]], weights_T: Sequence[float], min_overlap: float
) -> list[tuple[list[float], str, float, float]]:
    """Return the boxes of several detectors as (box, class, score, agreement), by weighted boxes fusion (arXiv 1910.13302).

    The agreement is the share of the detectors that see the box.

    Args:
        instances_T: the boxes of each detector, as `det` stores them.
        weights_T: how much each detector counts.
        min_overlap: IoU with a fused box from which on a box belongs to it.
    """
    flat = [
        (instance["class_name"], instance["score"] * weight, np.array(instance["box"]))
        for instances, weight in zip(instances_T, weights_T, strict=True)
        for instance in instances
    ]
    clusters: dict[str, list[_Cluster]] = {}
    for name, score, box_4 in sorted(flat, key=lambda entry: -entry[1]):
        of_class = clusters.setdefault(name, [])
        shares = box_iou(box_4[None], np.stack([cluster.box for cluster in of_class]))[0] if of_class else np.zeros(1)
        if shares.max() > min_overlap:
            cluster = of_class[int(shares.argmax())]
        else:
            of_class.append(cluster := _Cluster())
        cluster.boxes.append(box_4)
        cluster.scores.append(score)
    total, count = sum(weights_T), len(weights_T)
    return [
        # the mean score, lowered for a box that few detectors see
        (
            cluster.box.tolist(),
            name,
            min(1.0, float(np.mean(cluster.scores)) * min(len(cluster.scores), count) / total),
            min(len(cluster.scores), count) / count,
        )
        for name, of_class in sorted(clusters.items())
        for cluster in of_class
    ]
