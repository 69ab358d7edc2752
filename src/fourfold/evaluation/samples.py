"""The samples of a split with their labels and, where the source has it, the exact truth."""

# N samples, H height, W width

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from fourfold.data.manifests import CAPTION
from fourfold.data.missing import Missing
from fourfold.data.shards import Sample, ShardSet, collate
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
    captions: list[str]  # of several captions of an image, the first: metrics have one reference; "" where there is none
    labels: dict[str, Any]
    truth: dict[str, Any]
    exact: bool
    class_table: ClassTable | None = None  # what the ids of `semseg` mean; None without segmentation
    choices: tuple[str, ...] = ()  # of a classification: the class names, in the order of their ids
    incomplete: int = 0  # samples before the last one that lack a label and are not among these

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def truth_only(self) -> dict[str, Any]:
        """The truth without the labels that stand in for what the source does not know."""
        return {name: values for name, values in self.truth.items() if values is not self.labels.get(name)}

    @cached_property
    def is_captioned(self) -> np.ndarray:
        """Bool (N,): samples that have a caption."""
        return np.array([bool(caption) for caption in self.captions], bool)

    @cached_property
    def captioned(self) -> "Samples":
        """The samples that have a caption: all of them, or a copy of some."""
        if self.is_captioned.all():
            return self
        rows = np.flatnonzero(self.is_captioned)
        labels = {name: _rows(values, rows) for name, values in self.labels.items()}
        kept = {name: values for name, values in self.truth.items() if values is not self.labels.get(name)}
        truth = {name: _rows(kept[name], rows) if name in kept else labels[name] for name in self.truth}
        keys, captions = _rows(self.keys, rows), _rows(self.captions, rows)
        return replace(self, keys=keys, rgb=self.rgb[rows], captions=captions, labels=labels, truth=truth)

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


def _rows(values: Any, rows: np.ndarray) -> Any:
    return values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows]


def load_samples(data: EvaluationData, split: str, names: Iterable[str], max_samples: int) -> Samples:
    """Return the first samples of a split that have all of these labels.

    Args:
        data: the shard sets.
        split: which split to read.
        names: the labels and kinds of truth that are of interest; those that a set does not have are left out.
        max_samples: how many samples to read at most.

    Raises:
        ValueError: images, labels and truth do not have the same keys, or every sample lacks a label.
    """
    wanted = sorted(set(names))
    exact = data.truth is not None and split in data.truth.splits()
    rows, incomplete = _complete(data.labels, split, _available(data.labels, split, wanted), max_samples)
    labels = collate(rows)
    keys = {row["__key__"] for row in rows} if incomplete else None
    inputs = _columns(data.shards, split, SOURCE_LABELS, max_samples, keys)
    if CAPTION in data.labels.modalities(split):  # a labeler made captions; those of the source are among them
        made = _columns(data.labels, split, [CAPTION], max_samples, keys)
        inputs[CAPTION] = ["" if isinstance(caption, Missing) else caption for caption in made[CAPTION]]
    truth = labels
    if exact and data.truth is not None:
        truth = labels | _columns(data.truth, split, _available(data.truth, split, wanted), max_samples, keys)
    for noun, columns in (("labels", labels), ("truth", truth)):
        if columns.get("__key__", inputs["__key__"]) != inputs["__key__"]:
            raise ValueError(f"The {noun} of split {split!r} and its images have different keys. Run the earlier stages again.")
    table = _class_table(data, split)
    values = inputs["__key__"], inputs["rgb"], inputs["caption"], labels, truth, exact, table
    return Samples(*values, incomplete=incomplete)


def _available(shards: ShardSet, split: str, names: Sequence[str]) -> list[str]:
    present = shards.modalities(split)
    return [name for name in names if name in present and name not in SOURCE_LABELS]


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


def _complete(shards: ShardSet, split: str, modalities: Sequence[str], max_samples: int) -> tuple[list[Sample], int]:
    """Return the first samples that lack none of the labels, and how many were left out before the last of them."""
    rows: list[Sample] = []
    incomplete = 0
    for sample in shards.iterate(split, modalities):
        if len(rows) == max_samples:
            break
        if any(isinstance(sample[name], Missing) for name in modalities):
            incomplete += 1
        else:
            rows.append(sample)
    if incomplete and not rows:
        raise ValueError(
            f"Every sample of split {split!r} lacks one of the labels {', '.join(modalities)}: nothing can be evaluated. Leave "
            "out a modality (null) under pseudo_labeling.labelers; data/02_labels/label_card.md has the reasons."
        )
    return rows, incomplete


def _columns(
    shards: ShardSet, split: str, modalities: Sequence[str], max_samples: int, keys: Collection[str] | None
) -> dict[str, Any]:
    """Return the first samples of a split as columns, those with one of the keys if there are any."""
    samples = shards.iterate(split, modalities)
    return collate(list(islice((one for one in samples if keys is None or one["__key__"] in keys), max_samples)))
