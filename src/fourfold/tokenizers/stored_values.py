"""Access to the stored values of a label: rgb and captions are cleaned samples, everything else is labels."""

from itertools import islice

import numpy as np

from fourfold.data.shards import Sample, ShardSet, collate
from fourfold.modalities import SOURCE_LABELS

SEGMENTATION = "semseg"  # the label whose manifest has the class table


def shards_of(name: str, shards: ShardSet, labels: ShardSet) -> ShardSet:
    """Return the set of shards that holds label `name`: the cleaned samples `shards`, or `labels`."""
    return shards if name in SOURCE_LABELS else labels


def load_values(shards: ShardSet, split: str, name: str, limit: int) -> np.ndarray:
    """Return the first `limit` values of a dense label of a split, (N, ...) as stored."""
    return np.stack([sample[name] for sample in islice(shards.iterate(split, [name]), limit)])


def read_shard(shards: ShardSet, labels: ShardSet, split: str, shard: str) -> Sample:
    """Return the samples of one shard as columns, from both sets.

    Raises:
        ValueError: the two sets hold different keys.
    """
    source = collate(shards.read(split, SOURCE_LABELS, shard))
    label_names = [name for name in labels.modalities(split) if name not in SOURCE_LABELS]
    labeled = collate(labels.read(split, label_names, shard))
    if source["__key__"] != labeled["__key__"]:
        raise ValueError(f"{split}/{shard}: images and labels have different keys. Run pseudo_labeling again.")
    return source | labeled
