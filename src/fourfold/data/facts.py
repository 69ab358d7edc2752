"""Facts about stored values for validations: one row per sample and modality."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fourfold.data import codecs
from fourfold.data.shards import ShardSet
from fourfold.modalities import LABELS, ClassTable

Fact = dict[str, Any]
COLUMNS = (
    "key",
    "split",
    "shard",
    "position",  # of the sample in its split, from 0; equal keys at equal positions mean aligned modalities
    "modality",
    "bytes",
    "sha256",  # of the stored bytes
    "height",  # pixels; rows of patches; crops of token sequences
    "width",  # pixels; columns of patches; tokens
    "channels",
    "min",
    "max",
    "mean",
    "finite",
    "num_unknown_ids",  # pixels whose class id is not in the class table of the set
    "caption_length",  # characters
    "num_words",
    "num_instances",
    "min_score",
    "boxes_valid",  # 0 <= min <= max <= 1 on both axes
    "num_colors",  # of the largest palette
    "num_metadata",  # types with a value
)


def fact_table(shards: ShardSet, splits: Iterable[str] | None = None, modalities: Iterable[str] | None = None) -> list[Fact]:
    """Return a row of `COLUMNS` per sample and modality, in the order of the shards; None where a fact is not defined.

    Args:
        shards: the shards to read.
        splits: default: all.
        modalities: default: all modalities of each split.

    Raises:
        ValueError: a shard is damaged, or a split does not exist.
    """
    return list(iterate_facts(shards, splits, modalities))


def iterate_facts(
    shards: ShardSet, splits: Iterable[str] | None = None, modalities: Iterable[str] | None = None
) -> Iterator[Fact]:
    """Yield the rows of `fact_table`, with one shard in memory at a time."""
    for split in shards.splits() if splits is None else splits:
        for modality in shards.modalities(split) if modalities is None else modalities:
            position, manifest = 0, shards.manifest(split, modality)
            for shard in manifest.shards:
                for key, content in shards.read_bytes(split, modality, shard.name):
                    position_facts = {
                        "key": key,
                        "split": split,
                        "shard": shard.name,
                        "position": position,
                        "modality": modality,
                    }
                    yield dict.fromkeys(COLUMNS) | position_facts | _facts(modality, content, manifest.class_table)
                    position += 1


def _facts(modality: str, content: bytes, class_table: ClassTable | None) -> Fact:
    value = codecs.decode(modality, content)
    facts: Fact = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if isinstance(value, np.ndarray):
        return facts | _array_facts(value) | ({} if class_table is None else _class_facts(value, class_table))
    if isinstance(value, str):
        return facts | {"caption_length": len(value), "num_words": len(value.split())}
    return facts | _json_facts(modality, value)


def _json_facts(modality: str, value: Any) -> Fact:
    kind = LABELS[modality].kind if modality in LABELS else ""
    if kind == "palette":
        return {
            "num_colors": max(map(int, value), default=0),
            **_extent(level for p in value.values() for c in p for level in c),
        }
    if kind == "metadata":
        return {"num_metadata": len(value), **_extent(value.values())}
    return _box_facts(value["instances"]) if isinstance(value, dict) and "instances" in value else {}


def _extent(values: Iterable[float]) -> Fact:
    array = np.array(list(values), float)
    return {"min": array.min(), "max": array.max(), "finite": bool(np.isfinite(array).all())} if array.size else {}


def _array_facts(value: np.ndarray) -> Fact:
    if value.ndim == 1:  # a vector has one position
        shape = {"height": 1, "width": 1, "channels": len(value)}
    else:
        shape = {"height": value.shape[0], "width": value.shape[1], "channels": value.shape[2] if value.ndim > 2 else 1}
    if not value.size:
        return shape
    wide = value.astype(np.float64)
    extent = {"min": float(wide.min()), "max": float(wide.max()), "mean": float(wide.mean())}
    return shape | extent | {"finite": bool(np.isfinite(wide).all())}


def _class_facts(value: np.ndarray, class_table: ClassTable) -> Fact:
    allowed = [*range(class_table.num_classes), *class_table.ignored]
    return {"num_unknown_ids": int((~np.isin(value, allowed)).sum())}


def _box_facts(instances: list[dict[str, Any]]) -> Fact:
    boxes = np.array([instance["box"] for instance in instances], dtype=float).reshape(-1, 4)
    ordered = (boxes[:, :2] <= boxes[:, 2:]).all() and (boxes >= 0).all() and (boxes <= 1).all()
    scores = [float(instance["score"]) for instance in instances if "score" in instance]
    return {"num_instances": len(instances), "min_score": min(scores, default=None), "boxes_valid": bool(ordered)}
