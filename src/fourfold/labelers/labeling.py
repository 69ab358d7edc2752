"""Labeling: every image of every split but the annotated one, a shard at a time.

A sample on which a labeler fails costs only this label: what is stored instead is the reason (`fourfold.data.missing`).
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fourfold.data import codecs
from fourfold.data.facts import facts_of
from fourfold.data.missing import Missing, present_rows
from fourfold.data.resuming import ResumedShards
from fourfold.data.shard_store import is_written, keep_at, store_of
from fourfold.data.shards import Sample, ShardSet, collate, finish_split, source_of, write_members
from fourfold.data.work_split import NO_SPLIT, WorkSplit
from fourfold.labelers.checks import ValueLimits
from fourfold.labelers.config import LabelingConfig
from fourfold.labelers.consistency import CONFIDENCE
from fourfold.labelers.losses import FILTERED, Loss, LossCounts, losses_of
from fourfold.labelers.protocol import Batch, Labeler, Rated
from fourfold.labelers.teachers import TeacherSet
from fourfold.local_workers import num_workers, one_thread, results_of
from fourfold.modalities import SOURCE_LABELS
from fourfold.overlap import overlapped
from fourfold.progress import progress
from fourfold.reuse import claim, fingerprint

TRAINING_SPLIT = "train"
DECIMALS = 4  # of confidences
Member = tuple[str, bytes, Any]  # extension, stored bytes, and the value that they store
Labeled = tuple[list[str], dict[str, list[Member]], list[Loss]]  # keys, members by modality, and what is missing
# Faults of the machine, its memory or network: another attempt may succeed, so they are no property of a sample.
MACHINE_FAULTS = (MemoryError, torch.OutOfMemoryError, ConnectionError, TimeoutError, ImportError)


def label_shards(
    shards: ShardSet,
    teachers: TeacherSet,
    config: LabelingConfig,
    folder: Path,
    work_split: WorkSplit = NO_SPLIT,
    *,
    shards_at: str | None = None,
) -> ShardSet:
    """Write the raw labels of every split but the annotated one, aligned with `shards`, and return them.

    A shard is written whole or not at all. Shards that an interrupted run with the same settings and inputs has written are
    kept.

    Args:
        shards: images and captions.
        teachers: the trained teachers.
        config: the labelers, their settings and the batch size.
        folder: where the labels are written.
        work_split: the share of the shards that this process labels. A later run over all shards writes the manifests.
        shards_at: where the labels are kept, see `keep_at`; by default in `folder`.

    Raises:
        ValueError: more labels of a modality are missing than `config.max_missing_share` allows.
    """
    settings = config.model_dump(mode="json", exclude={"integration", "max_missing_share"})
    labelers = teachers.labelers()
    inputs = {"teachers": teachers.digest(), "shards": shards.digest()}
    work = fingerprint(__name__, inputs=inputs, uses=[*labelers, *teachers.networks.values()], labeling=settings)
    claim(folder, work, shared=not work_split.is_whole)
    keep_at(folder, shards_at, shared=not work_split.is_whole)
    is_rated = any(labeler.rated for labeler in labelers)
    modalities = [*(labeler.modality for labeler in labelers), *([CONFIDENCE] if is_rated else [])]
    tables = config.class_tables()
    names = {split: stored_shards(shards, split, config) for split in labeled_splits(shards, config)}
    splits = [split for split in names if names[split]]
    share = work_split.of([(split, shard) for split in splits for shard in names[split]])
    resumed, store = ResumedShards(folder, modalities), store_of(folder)
    waiting = [(split, shard) for split, shard in share if resumed.missing(split, shard)]
    sizes = {(split, shard): count for split in splits for shard, count in shards.samples_by_shard(split).items()}

    def read(at: tuple[str, str]) -> list[Sample]:
        return shards.read(at[0], SOURCE_LABELS, at[1])

    def label(at: tuple[str, str], samples: list[Sample]) -> Labeled:
        keys = [sample["__key__"] for sample in samples]
        return keys, *label_samples(samples, teachers, config.batch_size, source_of(at[1]))

    def write(at: tuple[str, str], labeled: Labeled) -> list[Loss]:
        split, shard = at
        keys, members, losses = labeled
        for modality, column in members.items():
            if not is_written(path := folder / split / modality / shard, store):
                files = ((key, ending, content) for key, (ending, content, _) in zip(keys, column, strict=True))
                about = [facts_of(modality, content, value, tables.get(modality)) for _, content, value in column]
                facts = [{"key": key, **one} for key, one in zip(keys, about, strict=True)]
                write_members(path, files, facts, tables.get(modality), store)
        return losses

    losses = LossCounts(sum(sizes[at] for at in share), config.max_missing_share)
    if num_workers(len(waiting)) > 1:  # processes overlap each other
        results = results_of(lambda at: write(at, label(at, read(at))), waiting)
    else:
        results = _in_one_process(waiting, read, label, write)
    with closing(results):
        for at, lost in zip(waiting, progress(results, "labeling", len(waiting), "shard"), strict=True):
            losses.add(at[0], sizes[at], lost)
    for split in splits if work_split.is_whole else ():
        origins, is_part = teachers.origins(), config.keep != "all"
        finish_split(folder, split, modalities, shards, tables, origins=origins, is_part=is_part)
    return ShardSet(folder)


def _in_one_process(
    waiting: Sequence[tuple[str, str]], read: Callable, label: Callable, write: Callable
) -> Generator[list[Loss], None, None]:
    with one_thread():
        yield from overlapped(waiting, read, label, write)


def stored_shards(shards: ShardSet, split: str, config: LabelingConfig) -> list[str]:
    """Return the names of the shards of a split whose labels are stored: the first ones of `train`, all of other splits."""
    counts = shards.samples_by_shard(split)
    wanted = {"all": sum(counts.values()), "sample": config.sample_size, "none": 0}[config.keep]
    if split != TRAINING_SPLIT:
        return list(counts)
    before = accumulate(counts.values(), initial=0)
    return [name for name, first in zip(counts, before, strict=False) if first < wanted]


def labeled_splits(shards: ShardSet, config: LabelingConfig) -> list[str]:
    """Return the splits that are labeled: all but the annotated one."""
    return [split for split in shards.splits() if split != config.annotated_split]


def label_samples(
    samples: list[Sample], teachers: TeacherSet, batch_size: int, source: str = ""
) -> tuple[dict[str, list[Member]], list[Loss]]:
    """Return the encoded labels of each modality, in the order of the samples, and those that are missing.

    Where a labeler is `rated`, `confidence` has that of each label by modality.

    Within a batch, every labeler also receives the labels of those before it, so that normals can read the depth, and the name
    of the `source` of each image, where there are several.

    Raises:
        ValueError: a labeler does not return one label for each image.
    """
    labelers = teachers.labelers()
    members: dict[str, list[Member]] = {labeler.modality: [] for labeler in labelers}
    losses: list[Loss] = []
    confidences: list[dict[str, float]] = [{} for _ in samples]
    for start in range(0, len(samples), batch_size):
        batch: Batch = collate([{**sample, "source": source} for sample in samples[start : start + batch_size]])
        outputs = _predicted(teachers, batch)
        for labeler in labelers:
            found = _labels(labeler, teachers, batch, outputs)
            for row, value in enumerate(found):
                if isinstance(value, Rated):
                    confidences[start + row][labeler.modality] = round(float(value.confidence), DECIMALS)
            values, column = _encoded(labeler, batch["__key__"], found)
            losses += losses_of(batch["__key__"], {labeler.modality: values})
            batch = {**batch, labeler.modality: values}
            members[labeler.modality] += column
    if any(labeler.rated for labeler in labelers):
        members[CONFIDENCE] = [("json", codecs.encode(CONFIDENCE, values), values) for values in confidences]
    return members, losses


def _predicted(teachers: TeacherSet, batch: Batch) -> dict[str, Any] | None:
    """Return the outputs of the teachers for a batch; None if one of them fails on it."""
    try:
        return teachers.predict(batch)
    except MACHINE_FAULTS:
        raise
    except Exception:
        return None


def _labels(labeler: Labeler, teachers: TeacherSet, batch: Batch, outputs: dict[str, Any] | None) -> list[Any]:
    """Return the labels of a batch, `Missing` for those that cannot be made.

    A batch that fails is labeled again one sample at a time: only the samples that cause the error lack a label.
    """
    # 1) Samples without a label that this one is made from
    keys, values = batch["__key__"], list[Any]([None] * len(batch["__key__"]))
    for column in labeler.requires:
        for row in sorted(set(range(len(keys))) - set(present_rows(batch[column]))):
            intended = FILTERED if batch[column][row].reason.startswith(FILTERED) else ""
            values[row] = values[row] or Missing(f"{intended}no {column} to make it from")
    rows = [row for row, value in enumerate(values) if value is None]
    is_whole = len(rows) == len(keys)
    # 2) The others at once, or one at a time
    try:
        part = batch if is_whole else _rows(batch, rows)
        found = _run(labeler, teachers, part, outputs if is_whole else None) if rows else []
    except (*MACHINE_FAULTS, WrongNumberError):
        raise
    except Exception:
        found = [_one(labeler, teachers, _rows(batch, [row])) for row in rows]
    for row, value in zip(rows, found, strict=True):
        values[row] = value
    return values


class WrongNumberError(ValueError):
    """A labeler does not return one label for each image: an error of its code, not of a sample."""


def _run(labeler: Labeler, teachers: TeacherSet, batch: Batch, outputs: dict[str, Any] | None) -> list[Any]:
    """Return the labels of a batch; `outputs` of the teachers are computed if they are not given."""
    if labeler.teacher is None:
        values = labeler.label(batch)
    else:
        values = labeler.label(batch, (outputs or teachers.predict(batch))[labeler.teacher.name])
    if len(values) != len(batch["__key__"]):
        raise WrongNumberError(
            f"Labeler {labeler.name!r} returned {len(values)} labels for {len(batch['__key__'])} images. "
            "It must return one for each."
        )
    return values


def _one(labeler: Labeler, teachers: TeacherSet, batch: Batch) -> Any:
    """Return the label of a batch of one sample, or why there is none."""
    try:
        return _run(labeler, teachers, batch, None)[0]
    except (*MACHINE_FAULTS, WrongNumberError):
        raise
    except Exception as error:
        return Missing.because_of(error, batch["__key__"][0])


def _rows(batch: Batch, rows: Sequence[int]) -> Batch:
    return {
        name: column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]
        for name, column in batch.items()
    }


def _encoded(labeler: Labeler, keys: Sequence[str], values: Sequence[Any]) -> tuple[list[Any], list[Member]]:
    """Return the labels and their members; a label that is impossible or cannot be stored is missing."""
    limits = ValueLimits(class_table=labeler.context.class_tables.get(labeler.modality))
    checked = [_checked(labeler, key, value, limits) for key, value in zip(keys, values, strict=True)]
    return [value for value, _ in checked], [member for _, member in checked]


def _checked(labeler: Labeler, key: str, value: Any, limits: ValueLimits) -> tuple[Any, Member]:
    try:
        value = value.value if isinstance(value, Rated) else value
        if not isinstance(value, Missing) and (problem := labeler.find_problem(value, limits)):
            value = Missing(f"impossible: {problem}")
        content = codecs.encode(labeler.modality, value)
    except MACHINE_FAULTS:
        raise
    except Exception as error:
        value = Missing.because_of(error, key)
        content = value.encode()
    return value, (codecs.extension(labeler.modality, value), content, value)
