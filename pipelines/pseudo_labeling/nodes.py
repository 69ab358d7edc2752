"""Nodes of pseudo-labeling: train teachers, label images, integrate labels, measure their quality."""

from pathlib import Path
from typing import Any

from fourfold.data.shards import ShardSet
from fourfold.data.work_split import WorkSplit
from fourfold.labelers.card import label_card
from fourfold.labelers.config import LabelingConfig
from fourfold.labelers.gallery import label_gallery
from fourfold.labelers.integration import integrate_labels
from fourfold.labelers.labeling import label_shards
from fourfold.labelers.measures import measure_teachers
from fourfold.labelers.page.page import label_page
from fourfold.labelers.teachers import TeacherSet, train_teachers
from fourfold.metric_log import MetricLog


def train_labelers(
    shards: ShardSet, truth: ShardSet, labeling: LabelingConfig, seed: int, teachers_folder: Path, log: MetricLog
) -> TeacherSet:
    """Train the teachers of the configured labelers on the annotated split."""
    return train_teachers(shards, truth, labeling, seed, teachers_folder, log)


def label_images(
    shards: ShardSet,
    teachers: TeacherSet,
    labeling: LabelingConfig,
    raw_labels_folder: Path,
    work_split: tuple[int, int],
    shards_at: str | None = None,
) -> ShardSet:
    """Label every image with every modality, or this process's share of the images."""
    return label_shards(shards, teachers, labeling, raw_labels_folder, WorkSplit(*work_split), shards_at=shards_at)


def combine_labels(
    raw_labels: ShardSet, shards: ShardSet, labeling: LabelingConfig, labels_folder: Path, shards_at: str | None = None
) -> tuple[ShardSet, dict[str, Any]]:
    """Check the labels, compare them with each other, filter boxes, and write what all later stages use."""
    return integrate_labels(raw_labels, shards, labeling, labels_folder, shards_at=shards_at)


def draw_labels(shards: ShardSet, labels: ShardSet) -> bytes:
    """Draw a few images with their labels, as PNG bytes; of `val`, or of the first split where there is none."""
    splits = labels.splits()
    return label_gallery(shards, labels, "val" if "val" in splits else splits[0])


def describe_labels(labels: ShardSet, label_report: dict[str, Any], labeling: LabelingConfig) -> str:
    """Return the label card: the teacher of each modality, with version and license, and missing labels, as Markdown."""
    return label_card(labels, labeling, label_report)


def show_labels(shards: ShardSet, labels: ShardSet, label_report: dict[str, Any], labeling: LabelingConfig) -> str:
    """Return the label page, a self-contained HTML page: the least certain labels, filters, and what is missing."""
    return label_page(shards, labels, label_report, labeling)


def measure_labelers(
    teachers: TeacherSet, labels: ShardSet, shards: ShardSet, truth: ShardSet
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure the labels on exact truth; no metrics when the source has none. `about` has the digests of what is measured.

    Returns:
        The metrics, and the curves of the teachers' trainings.
    """
    about = {"teachers": teachers.digest(), "labels": labels.digest()}
    return {**measure_teachers(teachers, shards, labels, truth), "about": about}, teachers.histories()
