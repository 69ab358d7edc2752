"""How good labels are, compared with exact truth."""

from typing import Any

import numpy as np

from fourfold.data.missing import present_rows
from fourfold.data.shards import ShardSet
from fourfold.labelers.protocol import ImageTextEncoder
from fourfold.labelers.teachers import TeacherSet
from fourfold.metrics.boxes import average_precision_50
from fourfold.metrics.dense import depth_errors, miou, normal_angles, recall_at_k
from fourfold.metrics.statistics import defined


def measure_teachers(teachers: TeacherSet, shards: ShardSet, labels: ShardSet, truth: ShardSet) -> dict[str, float]:
    """Return the quality of the labels on the first of `measured_splits` that has truth.

    Depth (absolute relative error, share of pixels within 25 %) and normals (degrees) are measured outside the background
    and the ignored pixels; segmentation as mean IoU over all classes and over things; boxes as AP at IoU 0.5. A modality
    whose teacher encodes images and texts has `recall_at_1`: the share of images whose own caption is the nearest of all
    captions of the split.

    Args:
        teachers: the teachers that produced the labels.
        shards: images and captions.
        labels: the integrated labels.
        truth: exact labels of some splits.

    Returns:
        `<modality>/<metric>` → a value in 0-1, or degrees; empty when no measured split has truth. A metric without anything
        to compare is absent.
    """
    split = next((name for name in teachers.config.measured_splits if name in truth.splits()), None)
    if split is None:
        return {}
    metrics = _dense_metrics(labels, truth, split)
    if "det" in labels.modalities(split):
        metrics["det/ap50"] = average_precision_50(*_pairs(labels, truth, split, "det"))
    for labeler in teachers.labelers():
        encoder = teachers.networks.get(labeler.teacher.name) if labeler.teacher else labeler
        if isinstance(encoder, ImageTextEncoder):
            metrics[f"{labeler.modality}/recall_at_1"] = _caption_recall(encoder, shards, split)
    return defined(metrics)


def _caption_recall(encoder: ImageTextEncoder, shards: ShardSet, split: str) -> float:
    _, images_NC = encoder.encode_image(shards.load_column(split, "rgb"))
    captions_NC = encoder.encode_text(shards.load_column(split, "caption"))
    return recall_at_k(images_NC, captions_NC, 1)


def _pairs(labels: ShardSet, truth: ShardSet, split: str, name: str, other: Any = None) -> tuple[Any, ...]:
    """Return the labels and the truth of the samples that have this label, and the same rows of another array, if given."""
    values, exact = labels.load_column(split, name), truth.load_column(split, name)
    if len(rows := present_rows(values)) == len(values):
        return (values, exact) if other is None else (values, exact, other)
    kept = [values[row] for row in rows]
    if not isinstance(exact, np.ndarray):
        return kept, [exact[row] for row in rows]
    stacked = np.stack(kept) if kept else exact[:0]
    return (stacked, exact[rows]) if other is None else (stacked, exact[rows], other[rows])


def _dense_metrics(labels: ShardSet, truth: ShardSet, split: str) -> dict[str, float]:
    present = labels.modalities(split)
    # 1) Which pixels have a surface, and which are on objects
    classes, ids_NHW = truth.class_table(split), truth.load_column(split, "semseg")
    valid_NHW = ~(classes.is_background(ids_NHW) | classes.is_ignored(ids_NHW))
    areas_N2HW = np.stack([valid_NHW, np.isin(ids_NHW, classes.things)], axis=1)
    # 2) Depth and normals there, segmentation everywhere
    metrics: dict[str, float] = {}
    if "depth" in present:
        depth_NHW, exact_NHW, areas = _pairs(labels, truth, split, "depth", areas_N2HW)
        metrics |= _prefixed("depth", depth_errors(depth_NHW, exact_NHW, areas[:, 0]))
    if "normal" in present:
        normal_NHW3, exact_NHW3, areas = _pairs(labels, truth, split, "normal", areas_N2HW)
        metrics |= _prefixed("normal", normal_angles(normal_NHW3, exact_NHW3, areas[:, 0], areas[:, 1]))
    # Ids of other classes cannot be compared with the truth
    if "semseg" in present and labels.class_table(split).names == classes.names:
        labeled_NHW, exact_NHW = _pairs(labels, truth, split, "semseg")
        metrics["semseg/miou"] = miou(labeled_NHW, exact_NHW, classes.num_classes)
        metrics["semseg/miou_objects"] = miou(labeled_NHW, exact_NHW, classes.num_classes, list(classes.things))
    return metrics


def _prefixed(modality: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{modality}/{name}": float(np.round(value, 6)) for name, value in metrics.items()}
