"""Transfer tasks with the heads of the papers: one call makes a task of segmentation, depth or boxes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fourfold.metrics.boxes import average_precision_statistic
from fourfold.metrics.dense import confusion, depth_errors, mean_iou
from fourfold.metrics.metric import Metric
from fourfold.metrics.statistics import value
from fourfold.transfer.heads.dense import DepthHead, SegmentationHead
from fourfold.transfer.heads.detection import Boxes, BoxHead
from fourfold.transfer.tasks import Examples, Targets, TransferTask

MIOU = Metric("miou", "mIoU", "mean IoU over the classes that occur, from intersections and unions over all images")
DEPTH = (
    Metric("delta1", "δ1", "share of pixels whose depth is wrong by a factor below 1.25"),
    Metric("abs_rel", "AbsRel", "mean of |predicted − true| / true", lower_is_better=True),
)
AVERAGE_PRECISION = (
    Metric("ap50", "AP50", "average precision of boxes at IoU 0.5, mean over classes, as COCO computes it"),
    Metric("ap", "AP", "the same, averaged over IoU from 0.5 to 0.95"),
)
IOUS = tuple(np.round(np.linspace(0.5, 0.95, 10), 2).tolist())


def segmentation_task(name: str, title: str, num_classes: int, truth: str = "semseg") -> TransferTask:
    """Return the task of classifying each pixel.

    Args:
        name: of the task in `finetuning.tasks`.
        title: in the report.
        num_classes: ids from 0; other ids do not count.
        truth: the kind of exact truth that has the maps of ids (H, W).
    """

    def score(predicted: Sequence[np.ndarray], examples: Examples) -> dict[str, float]:
        if not len(predicted):
            return {MIOU.name: math.nan}
        found = confusion(np.stack(predicted), np.stack(examples.labels), num_classes)
        return {"miou": float(mean_iou(found.sum(axis=0)))}

    head = SegmentationHead(num_classes)
    return TransferTask(name, title, (MIOU,), _labels, score, head=head, truth=truth)


def depth_task(name: str, title: str, head: DepthHead, truth: str = "depth") -> TransferTask:
    """Return the task of predicting depth in meters; `head` has the limits of what counts, other arguments are as above."""

    def score(predicted: Sequence[np.ndarray], examples: Examples) -> dict[str, float]:
        if not len(predicted):
            return {metric.name: math.nan for metric in DEPTH}
        truth_NHW = np.stack(examples.labels)
        return depth_errors(np.stack(predicted), truth_NHW, head.is_valid(truth_NHW))

    return TransferTask(name, title, DEPTH, _labels, score, head=head, truth=truth)


def box_task(name: str, title: str, classes: tuple[str, ...], truth: str = "det") -> TransferTask:
    """Return the task of finding boxes of some classes; needs torchvision. Other arguments are as above."""

    def score(predicted: Sequence[Boxes], examples: Examples) -> dict[str, float]:
        wanted = [{"instances": [i for i in boxes["instances"] if i["class_name"] in classes]} for boxes in examples.labels]
        each = [value(average_precision_statistic(predicted, wanted, iou)) for iou in IOUS]
        return {"ap50": each[0], "ap": float(np.mean(each))}

    return TransferTask(name, title, AVERAGE_PRECISION, _labels, score, head=BoxHead(classes), truth=truth)


def _labels(values: list[Any], seed: int) -> Targets:
    return Targets(labels=values)
