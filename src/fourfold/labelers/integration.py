"""Integration: the labels of different teachers are brought together, compared with each other, and filtered.

No sample is dropped, since all modalities stay aligned; a box may be. A label that cannot be right (a depth that is not a
number, a class that does not exist) is an error; what teachers merely disagree on is counted.
"""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fourfold.data.shards import Sample, ShardSet, collate, finish_split, write_columns
from fourfold.labelers.config import IntegrationConfig, LabelingConfig
from fourfold.labelers.geometry.normals import blunt_normals
from fourfold.labelers.image_statistics.metadata import recounted
from fourfold.modalities.camera import Camera
from fourfold.modalities.metadata import METADATA_TYPES, Range
from fourfold.progress import progress
from fourfold.reuse import claim, fingerprint
from fourfold.scenes.world import CLASS_NAMES
from fourfold.storage import atomic_path

FATES = ("kept", "dropped_score", "dropped_shape", "dropped_class")
UNIT_TOLERANCE = 0.03  # of the length of a normal that is stored in 8 bits, or a vector in 16


def integrate_labels(
    labels: ShardSet, shards: ShardSet, config: LabelingConfig, folder: Path
) -> tuple[ShardSet, dict[str, Any]]:
    """Write the labels that all later stages use, aligned with `shards`; return them and a report of what was found.

    The report holds, per split, counts (`boxes/kept`, `boxes/dropped_score`, `boxes/dropped_class`, `normals/disagree`, ...)
    and means; see `_check`. Raises ValueError that names split, key and modality of a label that cannot be right.
    """
    inputs = {"labels": labels.digest()}
    claim(folder, fingerprint(__name__, inputs=inputs, integration=config.integration, camera=config.camera))
    report: dict[str, Any] = {}
    for split in labels.splits():
        modalities = labels.modalities(split)
        counts: Counter[str] = Counter({f"boxes/{fate}": 0 for fate in FATES})
        for name in progress(labels.shard_names(split), f"integrating {split}", unit="shard"):
            samples = labels.read(split, modalities, name)
            for sample in samples:
                _require_possible(sample, split, config.integration)
            counts.update(_check(samples, config))
            changed = _changed(samples, config.integration, counts)
            for modality in modalities:
                if modality in changed:
                    keys = (sample["__key__"] for sample in samples)
                    write_columns(folder, split, name, {modality: zip(keys, changed[modality], strict=True)})
                else:
                    _copy_shard(labels.root / split / modality / name, folder / split / modality / name)
        finish_split(folder, split, modalities, like=shards)
        report[split] = _summary(counts)
    return ShardSet(folder), report


def _changed(samples: list[Sample], config: IntegrationConfig, counts: Counter[str]) -> dict[str, list[Any]]:
    """Return the columns that integration changes: boxes without those that are dropped, and metadata that counts them."""
    if "det" not in samples[0]:
        return {}
    boxes = [_kept_boxes(sample, config, counts) for sample in samples]
    if "metadata" not in samples[0]:
        return {"det": boxes}
    pairs = zip(samples, boxes, strict=True)
    return {"det": boxes, "metadata": [recounted(sample["metadata"], kept["instances"]) for sample, kept in pairs]}


def _copy_shard(source: Path, target: Path) -> None:
    if not target.exists():
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def _require_possible(sample: Sample, split: str, config: IntegrationConfig) -> None:
    """Raise ValueError when a label of the sample is outside what its modality can be."""
    tests = {
        "depth": lambda depth: np.isfinite(depth).all() and depth.min() > 0 and depth.max() <= config.max_depth,
        "normal": lambda normal: np.abs(_lengths(normal) - 1).max() < UNIT_TOLERANCE,
        "semseg": lambda classes: classes.max() < len(CLASS_NAMES),
        "clip": lambda features: np.isfinite(features).all(),
        "clip_global": lambda vector: abs(np.linalg.norm(vector.astype(np.float32)) - 1) < UNIT_TOLERANCE,
        "canny_edge": lambda edges: np.isin(edges, (0, 255)).all(),
        "color_palette": lambda palettes: all(_is_palette(size, colors) for size, colors in palettes.items()),
        "metadata": lambda values: values.keys() <= METADATA_TYPES.keys() and np.isfinite(list(values.values())).all(),
    }
    for modality, is_possible in tests.items():
        if modality in sample and not is_possible(sample[modality]):
            raise ValueError(
                f"Split {split!r}, sample {sample['__key__']!r}: its {modality} label cannot be right. Allowed: depth of at "
                f"most {config.max_depth} m, unit normals, classes below {len(CLASS_NAMES)}, finite features, unit vectors, "
                "edges of 0 or 255, palettes by their number of colors, known types of metadata. Mend its labeler."
            )


def _is_palette(size: str, colors: list[list[int]]) -> bool:
    return size == str(len(colors)) and all(len(c) == 3 and all(0 <= level <= 255 for level in c) for c in colors)


def _lengths(normal_HW3: np.ndarray) -> np.ndarray:
    return np.linalg.norm(normal_HW3.astype(np.float32) / 127.5 - 1, axis=-1)


def _check(samples: list[Sample], config: LabelingConfig) -> Counter[str]:
    """Compare the labels of some samples with each other; returns counts, and sums of what `_summary` makes means of."""
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
    """Return the mean angle in degrees (B,) between stored normals uint8 and a blunt plane fit to the depth (meters)."""
    fitted_Bhw3 = blunt_normals(torch.from_numpy(np.asarray(depth_BHW, np.float32)), camera).numpy()
    stored_Bhw3 = np.asarray(normal_BHW3[:, 1:-1, 1:-1], np.float32) / 127.5 - 1
    cosine_Bhw = (fitted_Bhw3 * stored_Bhw3).sum(-1).clip(-1, 1)
    return np.degrees(np.arccos(cosine_Bhw)).mean((1, 2))


def _kept_boxes(sample: Sample, config: IntegrationConfig, counts: Counter[str]) -> dict[str, Any]:
    """Return `det` without boxes that are weak, empty, or do not hold what the segmentation sees there."""
    kept = []
    for instance in sample["det"]["instances"]:
        fate = _fate(instance, sample.get("semseg"), config)
        counts[f"boxes/{fate}"] += 1
        if fate == "kept":
            kept.append(instance)
    return {"instances": kept}


def _fate(instance: dict[str, Any], classes_HW: np.ndarray | None, config: IntegrationConfig) -> str:
    if instance["score"] < config.min_score:
        return "dropped_score"
    xmin, ymin, xmax, ymax = instance["box"]
    if not (0 <= xmin < xmax <= 1 and 0 <= ymin < ymax <= 1):
        return "dropped_shape"
    if classes_HW is not None and _class_share(classes_HW, instance) < config.min_class_overlap:
        return "dropped_class"
    return "kept"


def _class_share(classes_HW: np.ndarray, instance: dict[str, Any]) -> float:
    """Return which share of the box's pixels the segmentation gives to the box's class."""
    H, W = classes_HW.shape
    xmin, ymin, xmax, ymax = instance["box"]
    inside = classes_HW[int(ymin * H) : max(int(np.ceil(ymax * H)), 1), int(xmin * W) : max(int(np.ceil(xmax * W)), 1)]
    return float((inside == CLASS_NAMES.index(instance["class_name"])).mean())


def _summary(counts: Counter[str]) -> dict[str, float]:
    """Return the counts as they are and the sums as means over samples."""
    sums = {name.removeprefix("sum/"): value / counts["samples"] for name, value in counts.items() if name.startswith("sum/")}
    return {name: value for name, value in sorted(counts.items()) if not name.startswith("sum/")} | sums
