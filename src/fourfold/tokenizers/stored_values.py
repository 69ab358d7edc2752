"""Access to the stored values of a label: rgb and captions are cleaned samples, everything else is labels.

A labeler of captions makes captions a label: those of the source are among them.
"""

from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any

import numpy as np

from fourfold.data.manifests import CAPTION
from fourfold.data.missing import Missing, is_missing
from fourfold.data.shards import Sample, ShardSet, collate
from fourfold.modalities import SOURCE_LABELS

SEGMENTATION = "semseg"  # the label whose manifest has the class table


def shards_of(name: str, shards: ShardSet, labels: ShardSet) -> ShardSet:
    """Return the set of shards that holds label `name`: the cleaned samples `shards`, or `labels`."""
    return shards if name in SOURCE_LABELS else labels


def captions_set(shards: ShardSet, labels: ShardSet, split: str) -> ShardSet:
    """Return the set of shards that holds the captions of a split: the labels if a labeler made captions."""
    return labels if split in labels.splits() and CAPTION in labels.modalities(split) else shards


def load_values(shards: ShardSet, split: str, name: str, limit: int, without: Collection[str] = ()) -> np.ndarray:
    """Return the first `limit` values of a dense label of a split, (N, ...) as stored; samples that lack it are left out.

    Args:
        shards: the set that holds the label.
        split, name: what to read.
        limit: values at most.
        without: keys of further samples that are left out.

    Raises:
        ValueError: no value is left.
    """
    values = present_values(shards, split, name, limit, without)
    if not values:
        raise ValueError(
            f"Every sample of split {split!r} lacks a {name} label; data/02_labels/label_card.md has the reasons. Correct the "
            "labeler, or leave it out (null) under pseudo_labeling.labelers."
        )
    return np.stack(values)


def present_values(shards: ShardSet, split: str, name: str, limit: int, without: Collection[str] = ()) -> list[Any]:
    """Return the first `limit` values of a label of a split; samples that lack it are left out, and those of `without`."""
    samples = (sample for sample in shards.iterate(split, [name]) if sample["__key__"] not in without)
    return list(islice((one[name] for one in samples if not isinstance(one[name], Missing)), limit))


def incomplete_keys(labels: ShardSet, split: str, names: Iterable[str]) -> set[str]:
    """Return the keys of the samples that lack one of some labels; no label is decoded."""
    members = (
        member for name in names for shard in labels.shard_names(split) for member in labels.read_bytes(split, name, shard)
    )
    return {key for key, content in members if is_missing(content)}


def read_shard(shards: ShardSet, labels: ShardSet, split: str, shard: str) -> Sample:
    """Return the samples of one shard as columns, from both sets.

    Raises:
        ValueError: the two sets hold different keys.
    """
    source = collate(shards.read(split, SOURCE_LABELS, shard))
    label_names = [name for name in labels.modalities(split) if name not in SOURCE_LABELS or name == CAPTION]
    labeled = collate(labels.read(split, label_names, shard))
    if source["__key__"] != labeled["__key__"]:
        raise ValueError(f"{split}/{shard}: images and labels have different keys. Run pseudo_labeling again.")
    return source | labeled
