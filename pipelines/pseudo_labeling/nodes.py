"""Nodes of pseudo-labeling: train teachers, label, integrate, measure."""

from pathlib import Path
from typing import Any

from fourfold.data.shards import ShardSet
from fourfold.data.work_split import WorkSplit
from fourfold.labelers.config import LabelingConfig
from fourfold.labelers.gallery import label_gallery
from fourfold.labelers.integration import integrate_labels
from fourfold.labelers.labeling import label_shards
from fourfold.labelers.measures import measure_teachers
from fourfold.labelers.teachers import TeacherSet, train_teachers
from fourfold.metric_log import MetricLog


def train_labelers(
    shards: ShardSet, truth: ShardSet, labeling: LabelingConfig, seed: int, teachers_folder: Path, log: MetricLog
) -> TeacherSet:
    """Train the default teachers on the small annotated split."""
    return train_teachers(shards, truth, labeling, seed, teachers_folder, log)


def label_images(
    shards: ShardSet, teachers: TeacherSet, labeling: LabelingConfig, raw_labels_folder: Path, work_split: tuple[int, int]
) -> ShardSet:
    """Run every labeler on every image, or on this process's share of the images."""
    return label_shards(shards, teachers, labeling, raw_labels_folder, WorkSplit(*work_split))


def combine_labels(
    raw_labels: ShardSet, shards: ShardSet, labeling: LabelingConfig, labels_folder: Path
) -> tuple[ShardSet, dict[str, Any]]:
    """Compare the labels of different teachers, filter boxes, and write the labels that later stages use."""
    return integrate_labels(raw_labels, shards, labeling, labels_folder)


def draw_labels(shards: ShardSet, labels: ShardSet) -> bytes:
    """Draw a few images with their labels, as PNG bytes; of `val`, or of the first split where there is none."""
    splits = labels.splits()
    return label_gallery(shards, labels, "val" if "val" in splits else splits[0])


def measure_labelers(teachers: TeacherSet, labels: ShardSet, shards: ShardSet, truth: ShardSet) -> dict[str, float]:
    """Compare labels with the exact truth, where there is one."""
    return measure_teachers(teachers, shards, labels, truth)
