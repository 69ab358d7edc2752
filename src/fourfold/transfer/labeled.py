"""Transfer tasks on labels that come with the data: class maps, depth and boxes of labelers of the kind `precomputed`.

They read the splits `train`, `val` and `test` of the source. What a teacher made is no label of the data: pretraining learned
it, and a task on it would measure the teacher. Such a task is skipped with a reason.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fourfold.transfer.annotated import TRANSFER_TASKS
from fourfold.transfer.heads.dense import DepthHead
from fourfold.transfer.label_tasks import box_task, depth_task, segmentation_task
from fourfold.transfer.tasks import OWN_SPLITS, Targets, TransferData, TransferTask, labeled_positions

LABELS = "labels"  # the source of these tasks, as `TransferTask.truth`
PRECOMPUTED = "precomputed"  # the kind of the labelers
NOT_COUNTED = 255  # class id


def missing_labels(data: TransferData, modality: str) -> str | None:
    """Return why the data have no labels of a modality that came with them; None if they have."""
    where = f"set pseudo_labeling.labelers.{modality} to {{kind: {PRECOMPUTED}, ...}} and run pseudo_labeling"
    if data.labels is None:
        return f"there are no labels; {where}"
    for split in OWN_SPLITS.values():
        if split not in data.labels.splits() or modality not in data.labels.modalities(split):
            return f"split {split!r} has no labels of {modality!r}; {where}"
        kind = (data.labels.manifest(split, modality).origin or {}).get("kind")
        if kind != PRECOMPUTED:
            return f"the labels of {modality!r} are those of a teacher, which pretraining has learned; {where}"
        if not len(labeled_positions(data, split, modality)):
            return f"split {split!r} has no image with a label of {modality!r}"
    return None


def _with_labels(
    modality: str, make: Callable[[TransferTask, TransferData], TransferTask]
) -> Callable[[TransferTask, TransferData], TransferTask | str]:
    """Return a function that resolves a task by the labels of a modality."""

    def resolve(task: TransferTask, data: TransferData) -> TransferTask | str:
        if (reason := missing_labels(data, modality)) is not None:
            return reason
        return replace(make(task, data), label=modality, truth=LABELS)

    return resolve


def _segmentation(task: TransferTask, data: TransferData) -> TransferTask:
    """Return the task with the classes of the labels; ignored ids do not count."""
    assert data.labels is not None
    table = data.labels.class_table("train")

    def targets(maps: list[Any], seed: int) -> Targets:
        return Targets(labels=[np.where(table.is_ignored(ids_HW), NOT_COUNTED, ids_HW) for ids_HW in maps])

    return replace(segmentation_task(task.name, task.title, table.num_classes), make_targets=targets)


def _boxes(task: TransferTask, data: TransferData) -> TransferTask:
    """Return the task with the classes of the boxes."""
    assert data.labels is not None
    return box_task(task.name, task.title, data.labels.class_table("train", "det").names)


LABELED_TASKS = (
    replace(
        segmentation_task("labeled_segmentation", "Segmentation of the data", 1),
        truth=LABELS,
        resolve=_with_labels("semseg", _segmentation),
    ),
    replace(
        depth_task("labeled_depth", "Depth of the data", DepthHead()),
        truth=LABELS,
        resolve=_with_labels("depth", lambda task, data: replace(task, resolve=None)),
    ),
    replace(box_task("labeled_detection", "Boxes of the data", ()), truth=LABELS, resolve=_with_labels("det", _boxes)),
)

for _task in LABELED_TASKS:  # available without a plug-in
    TRANSFER_TASKS.register(_task.name, _task)
