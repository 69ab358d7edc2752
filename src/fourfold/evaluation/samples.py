"""The samples of a split with their labels and, where the source has it, the exact truth."""

# N samples, H height, W width

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from fourfold.data.shards import ShardSet, collate
from fourfold.modalities import SOURCE_LABELS
from fourfold.modalities.class_table import ClassTable


@dataclass(frozen=True)
class EvaluationData:
    """The shard sets of a data set, and the splits that evaluation reads."""

    shards: ShardSet  # images and captions
    labels: ShardSet  # what the labelers wrote
    truth: ShardSet | None  # exact truth, for the splits that have it
    split: str = "test"  # is scored
    fit_split: str = "val"  # the trivial answers are fitted on it


@dataclass(frozen=True)
class Samples:
    """N samples, aligned; values have the formats of `fourfold.data.codecs`.

    `truth` is what predictions are compared with: exact truth where the source has it (then `exact` is True), otherwise the
    labels. Dense labels are (N, H, W) or (N, H, W, C), all others lists of N values.
    """

    keys: list[str]
    rgb: np.ndarray  # uint8 (N, H, W, 3)
    captions: list[str]
    labels: dict[str, Any]
    truth: dict[str, Any]
    exact: bool
    class_table: ClassTable | None = None  # what the ids of `semseg` mean; None without segmentation
    choices: tuple[str, ...] = ()  # of a classification: the class names, in the order of their ids

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def truth_only(self) -> dict[str, Any]:
        """The truth without the labels that stand in for what the source does not know."""
        return {name: values for name, values in self.truth.items() if values is not self.labels.get(name)}

    @cached_property
    def valid(self) -> np.ndarray:
        """Bool (N, H, W): pixels that have a depth and a normal, which excludes the background and ignored ids."""
        if self.class_table is None or "semseg" not in self.truth:
            return np.ones(self.rgb.shape[:3], bool)
        ids_NHW = self.truth["semseg"]
        return ~(self.class_table.is_background(ids_NHW) | self.class_table.is_ignored(ids_NHW))

    @cached_property
    def objects(self) -> np.ndarray:
        """Bool (N, H, W): pixels of countable objects ("things"); none without a class table."""
        if self.class_table is None or "semseg" not in self.truth:
            return np.zeros(self.rgb.shape[:3], bool)
        return np.isin(self.truth["semseg"], self.class_table.things)


def load_samples(data: EvaluationData, split: str, names: Iterable[str], max_samples: int) -> Samples:
    """Return the first samples of a split.

    Args:
        data: the shard sets.
        split: which split to read.
        names: the labels and kinds of truth that are of interest; those that a set does not have are left out.
        max_samples: how many samples to read at most.

    Raises:
        ValueError: images, labels and truth do not have the same keys.
    """
    wanted = sorted(set(names))
    exact = data.truth is not None and split in data.truth.splits()
    inputs = _columns(data.shards, split, SOURCE_LABELS, max_samples)
    labels = _columns(data.labels, split, _available(data.labels, split, wanted), max_samples)
    truth = labels
    if exact and data.truth is not None:
        truth = labels | _columns(data.truth, split, _available(data.truth, split, wanted), max_samples)
    for noun, columns in (("labels", labels), ("truth", truth)):
        if columns.get("__key__", inputs["__key__"]) != inputs["__key__"]:
            raise ValueError(f"The {noun} of split {split!r} and its images have different keys. Run the earlier stages again.")
    table = _class_table(data, split)
    return Samples(inputs["__key__"], inputs["rgb"], inputs["caption"], labels, truth, exact, table)


def _available(shards: ShardSet, split: str, names: Sequence[str]) -> list[str]:
    present = shards.modalities(split)
    return [name for name in names if name in present]


def _class_table(data: EvaluationData, split: str) -> ClassTable | None:
    """Return the class table of the labels, or that of the truth; None without segmentation."""
    sets = [data.labels, *([data.truth] if data.truth is not None and split in data.truth.splits() else [])]
    tables = [s.manifest(split, "semseg").class_table for s in sets if "semseg" in s.modalities(split)]
    if tables and not any(tables):
        raise ValueError(
            f"The labels of split {split!r} have a segmentation without a class table. "
            "The labeler of 'semseg' must declare one (docs/guides); then run the pseudo_labeling stage again."
        )
    return next((table for table in tables if table is not None), None)


def _columns(shards: ShardSet, split: str, modalities: Sequence[str], max_samples: int) -> dict[str, Any]:
    return collate(list(islice(shards.iterate(split, modalities), max_samples)))
