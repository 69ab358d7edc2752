"""Integration: check the labels of all labelers, compare them with each other, and filter boxes.

No sample is dropped, so all modalities stay aligned; single boxes may be. A label that is impossible (a depth that is not
finite, a class that does not exist) is an error; disagreements between labelers are counted.
"""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fourfold.data.shards import Sample, ShardSet, collate, finish_split, write_columns
from fourfold.labelers.checks import ValueLimits, find_problem
from fourfold.labelers.config import IntegrationConfig, LabelingConfig
from fourfold.labelers.geometry.normals import fast_normals
from fourfold.labelers.image_statistics.metadata import recounted
from fourfold.modalities import label as label_entry
from fourfold.modalities.camera import Camera
from fourfold.modalities.class_table import ClassTable
from fourfold.modalities.metadata import METADATA_TYPES, Range
from fourfold.progress import progress
from fourfold.reuse import claim, fingerprint
from fourfold.storage import atomic_path

KEPT = "kept"
REJECTION_REASONS = ("dropped_score", "dropped_shape", "dropped_class")
SEGMENTATION = "semseg"  # the labels that boxes are compared with


def integrate_labels(
    labels: ShardSet, shards: ShardSet, config: LabelingConfig, folder: Path
) -> tuple[ShardSet, dict[str, Any]]:
    """Write the labels that all later stages use, and return them with a report.

    Args:
        labels: the raw labels.
        shards: the images; the labels must be aligned with them.
        config: the limits, the camera, and the labelers whose checks apply.
        folder: where the labels are written.

    Returns:
        The integrated labels, and per split counts (`boxes/kept`, `boxes/dropped_score`, `boxes/dropped_class`,
        `normals/disagree`, ...) and means over samples (`normals/angle_to_depth`, in degrees).

    Raises:
        ValueError: a label is impossible; the message names split, key and modality.
    """
    uses, inputs = config.labeler_classes().values(), {"labels": labels.digest()}
    claim(folder, fingerprint(__name__, inputs=inputs, uses=uses, integration=config.integration, camera=config.camera))
    report: dict[str, Any] = {}
    for split in labels.splits():
        modalities = labels.modalities(split)
        tables = {m: table for m in modalities if (table := labels.manifest(split, m).class_table) is not None}
        counts: Counter[str] = Counter({f"boxes/{outcome}": 0 for outcome in (KEPT, *REJECTION_REASONS)})
        for name in progress(labels.shard_names(split), f"integrating {split}", unit="shard"):
            samples = labels.read(split, modalities, name)
            for sample in samples:
                _require_possible(sample, split, config, tables)
            counts.update(_compare(samples, config))
            changed = _changed_columns(samples, config.integration, tables.get(SEGMENTATION), counts)
            for modality in modalities:
                if modality in changed:
                    keys = (sample["__key__"] for sample in samples)
                    write_columns(folder, split, name, {modality: zip(keys, changed[modality], strict=True)})
                else:
                    _copy_shard(labels.root / split / modality / name, folder / split / modality / name)
        finish_split(folder, split, modalities, like=shards, class_tables=tables)
        report[split] = _summary(counts)
    return ShardSet(folder), report


def _changed_columns(
    samples: list[Sample], config: IntegrationConfig, classes: ClassTable | None, counts: Counter[str]
) -> dict[str, list[Any]]:
    """Return the columns that integration changes: boxes without the rejected ones, and metadata that counts boxes."""
    if "det" not in samples[0]:
        return {}
    boxes = [_kept_boxes(sample, config, classes, counts) for sample in samples]
    if "metadata" not in samples[0]:
        return {"det": boxes}
    pairs = zip(samples, boxes, strict=True)
    return {"det": boxes, "metadata": [recounted(sample["metadata"], kept["instances"]) for sample, kept in pairs]}


def _copy_shard(source: Path, target: Path) -> None:
    if not target.exists():
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def _require_possible(sample: Sample, split: str, config: LabelingConfig, tables: dict[str, ClassTable]) -> None:
    """Raise ValueError when a label of the sample is outside what its labeler, or its kind, allows."""
    labelers = config.labeler_classes()
    for modality in sample.keys() - {"__key__"}:
        limits = ValueLimits(config.integration.max_depth, tables.get(modality))
        if modality in labelers:
            problem = labelers[modality].find_problem(sample[modality], limits)
        else:  # labels from elsewhere
            problem = find_problem(label_entry(modality).kind, sample[modality], limits)
        if problem:
            source = f"labeler {config.labelers[modality]!r}" if modality in labelers else "the source of these labels"
            raise ValueError(
                f"Split {split!r}, sample {sample['__key__']!r}: impossible {modality} label: {problem}. Correct {source}."
            )


def _compare(samples: list[Sample], config: LabelingConfig) -> Counter[str]:
    """Compare the labels of some samples with each other; returns counts, and sums of what `_summary` averages."""
    counts: Counter[str] = Counter({"samples": len(samples)})
    if {"depth", "normal"} <= samples[0].keys():
        batch = collate(samples)
        angles_B = normal_angles_to_depth(batch["normal"], batch["depth"], config.camera)
        counts["normals/disagree"] += int((angles_B > config.integration.max_normal_angle).sum())
        counts["sum/normals/angle_to_depth"] += float(angles_B.sum())  # type: ignore[assignment]
    for sample in samples:
        for name, value in sample.get("metadata", {}).items():
            if isinstance(bins := METADATA_TYPES[name], Range) and not bins.low <= value <= bins.high:
                counts[f"metadata/{name}_out_of_range"] += 1
    return counts


def normal_angles_to_depth(normal_BHW3: np.ndarray, depth_BHW: np.ndarray, camera: Camera) -> np.ndarray:
    """Return the mean angle in degrees (B,) between stored normals uint8 and normals computed from the depth (meters)."""
    fitted_Bhw3 = fast_normals(torch.from_numpy(np.asarray(depth_BHW, np.float32)), camera).numpy()
    stored_Bhw3 = np.asarray(normal_BHW3[:, 1:-1, 1:-1], np.float32) / 127.5 - 1
    cosine_Bhw = (fitted_Bhw3 * stored_Bhw3).sum(-1).clip(-1, 1)
    return np.degrees(np.arccos(cosine_Bhw)).mean((1, 2))


def _kept_boxes(sample: Sample, config: IntegrationConfig, classes: ClassTable | None, counts: Counter[str]) -> dict[str, Any]:
    """Return `det` without the rejected boxes, and count every outcome."""
    kept = []
    for instance in sample["det"]["instances"]:
        reason = _rejection_reason(instance, sample.get(SEGMENTATION), classes, config)
        counts[f"boxes/{reason or KEPT}"] += 1
        if reason is None:
            kept.append(instance)
    return {"instances": kept}


def _rejection_reason(
    instance: dict[str, Any], ids_HW: np.ndarray | None, classes: ClassTable | None, config: IntegrationConfig
) -> str | None:
    """Return why a box is rejected: a low score, an empty or impossible shape, or another class in the segmentation."""
    if instance["score"] < config.min_score:
        return "dropped_score"
    xmin, ymin, xmax, ymax = instance["box"]
    if not (0 <= xmin < xmax <= 1 and 0 <= ymin < ymax <= 1):
        return "dropped_shape"
    # A detector may have classes that the segmentation lacks; their boxes cannot be compared.
    if ids_HW is None or classes is None or instance["class_name"] not in classes.names:
        return None
    share = _share_inside(ids_HW, instance["box"], classes.id_of(instance["class_name"]))
    return "dropped_class" if share < config.min_class_overlap else None


def _share_inside(ids_HW: np.ndarray, box: list[float], class_id: int) -> float:
    """Return the share of a box's pixels that have a class."""
    H, W = ids_HW.shape
    xmin, ymin, xmax, ymax = box
    inside = ids_HW[int(ymin * H) : max(int(np.ceil(ymax * H)), 1), int(xmin * W) : max(int(np.ceil(xmax * W)), 1)]
    return float((inside == class_id).mean())


def _summary(counts: Counter[str]) -> dict[str, float]:
    """Return the counts, and the sums as means over samples."""
    sums = {name.removeprefix("sum/"): value / counts["samples"] for name, value in counts.items() if name.startswith("sum/")}
    return {name: value for name, value in sorted(counts.items()) if not name.startswith("sum/")} | sums
