"""RGB → depth, normals, segmentation and boxes."""

# N samples, H height, W width, C classes

from collections.abc import Sequence
from typing import Any

import numpy as np

from fourfold.evaluation.samples import Samples
from fourfold.evaluation.tasks.protocol import PredictionTask, TaskContext
from fourfold.metrics.boxes import average_precision_statistic
from fourfold.metrics.dense import aligned_depth, depth_statistics, normal_statistics, segmentation_statistics, unit_normals
from fourfold.metrics.keypoints import keypoint_statistics, mean_person
from fourfold.metrics.metric import Metric
from fourfold.metrics.statistics import Statistic
from fourfold.modalities.class_table import MAX_ID, ClassTable


def score_depth(predicted: np.ndarray, context: TaskContext) -> dict[str, Statistic]:
    """Return `abs_rel` and `delta1` of depth (N, H, W) in meters or, if `relative_depth`, aligned; outside the background."""
    truth, valid = context.samples.truth["depth"], context.samples.valid
    return depth_statistics(aligned_depth(predicted, truth, valid) if context.relative_depth else predicted, truth, valid)


def score_normals(predicted: np.ndarray, context: TaskContext) -> dict[str, Statistic]:
    """Return `mean_angle` and `mean_angle_objects` of normals uint8 (N, H, W, 3), outside the background."""
    return normal_statistics(predicted, context.samples.truth["normal"], context.samples.valid, context.samples.objects)


def score_segmentation(predicted: np.ndarray, context: TaskContext) -> dict[str, Statistic]:
    """Return `miou` and `miou_objects` of class ids uint8 (N, H, W); pixels whose true class is ignored do not count."""
    table, truth = class_table(context.samples), context.samples.truth["semseg"]
    if table.ignored:
        truth = np.where(table.is_ignored(truth), MAX_ID + 1, truth.astype(np.int64))  # out of range: not counted
    return segmentation_statistics(predicted, truth, table.num_classes, list(table.things))


def score_boxes(predicted: Sequence[dict], context: TaskContext) -> dict[str, Statistic]:
    """Return `ap50` of boxes."""
    return {"ap50": average_precision_statistic(predicted, context.samples.truth["det"])}


def median_depth(depth_NHW: np.ndarray) -> np.ndarray:
    """Return the median depth of each pixel (H, W) in meters, which minimizes the absolute error."""
    return np.median(depth_NHW.astype(np.float32), axis=0)


def mean_normal(normal_NHWC: np.ndarray) -> np.ndarray:
    """Return the mean direction of each pixel, unit vectors float64 (H, W, 3)."""
    return unit_normals(unit_normals(normal_NHWC).mean(axis=0))


def most_frequent_class(semseg_NHW: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the most frequent class of each pixel, uint8 (H, W)."""
    counts = np.stack([(semseg_NHW == c).sum(axis=0) for c in range(num_classes)])
    return counts.argmax(axis=0).astype(np.uint8)


def class_table(samples: Samples) -> ClassTable:
    """Return the class table of samples with a segmentation; raises ValueError when there is none."""
    if samples.class_table is None:
        raise ValueError("A segmentation is scored, but there is no class table. The reader of the data must declare one.")
    return samples.class_table


def _no_boxes(samples: Samples) -> dict[str, Any]:
    return {"instances": []}


DENSE_TASKS = (
    PredictionTask(
        source="rgb",
        target="depth",
        metrics=(
            Metric("abs_rel", "AbsRel", "mean relative error of depth, without background", lower_is_better=True),
            Metric("delta1", "δ₁", "share of pixels whose depth is within a factor of 1.25"),
        ),
        score=score_depth,
        trivial=lambda fitted: median_depth(fitted.truth["depth"]),
        teacher=lambda context: context.samples.labels.get("depth"),
        truth=("depth",),
        headline=True,
        gallery_title="Depth",
    ),
    PredictionTask(
        source="rgb",
        target="normal",
        metrics=(
            Metric("mean_angle_objects", "mean angle, objects", "degrees between normals on object pixels", True),
            Metric("mean_angle", "mean angle", "degrees between normals, without background", True),
        ),
        score=score_normals,
        trivial=lambda fitted: mean_normal(fitted.truth["normal"]),
        teacher=lambda context: context.samples.labels.get("normal"),
        truth=("normal",),
        headline=True,
        gallery_title="Normals",
    ),
    PredictionTask(
        source="rgb",
        target="semseg",
        metrics=(
            Metric("miou", "mIoU", "mean over classes of intersection over union"),
            Metric("miou_objects", "mIoU, objects", "the same over the classes of objects"),
        ),
        score=score_segmentation,
        trivial=lambda fitted: most_frequent_class(fitted.truth["semseg"], class_table(fitted).num_classes),
        teacher=lambda context: context.samples.labels.get("semseg"),
        truth=("semseg",),
        headline=True,
        gallery_title="Segmentation",
    ),
    PredictionTask(
        source="rgb",
        target="det",
        metrics=(Metric("ap50", "AP50", "average precision of boxes at IoU 0.5"),),
        score=score_boxes,
        trivial=_no_boxes,
        teacher=lambda context: context.samples.labels.get("det"),
        truth=("det",),
        headline=True,
        gallery_title="Boxes",
    ),
    PredictionTask(
        source="rgb",
        target="keypoints",
        metrics=(
            Metric("oks", "OKS", "object keypoint similarity of COCO, a mean over the images with people"),
            Metric("people_f1", "people F1", "F1 of the images with people"),
        ),
        score=lambda predicted, context: keypoint_statistics(predicted, context.samples.truth["keypoints"]),
        trivial=lambda fitted: mean_person(fitted.truth["keypoints"]),
        teacher=lambda context: context.samples.labels.get("keypoints"),
        truth=("keypoints",),
        gallery_title="Joints",
    ),
)
