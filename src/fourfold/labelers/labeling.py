"""Labeling shards: every picture of every split that has no need of truth, one shard at a time."""

import logging
from pathlib import Path

from fourfold.data.shards import Sample, ShardSet, collate, finish_split, missing_columns, write_columns
from fourfold.data.work_split import NO_SPLIT, WorkSplit
from fourfold.labelers.config import LabelingConfig
from fourfold.labelers.protocol import Labeler
from fourfold.labelers.teachers import TeacherSet
from fourfold.progress import progress
from fourfold.reuse import claim, fingerprint

logger = logging.getLogger(__name__)
SOURCE_COLUMNS = ("rgb", "caption")


def label_shards(
    shards: ShardSet, teachers: TeacherSet, config: LabelingConfig, folder: Path, work_split: WorkSplit = NO_SPLIT
) -> ShardSet:
    """Write the raw labels of every split but the annotated one, aligned with `shards`, and return them.

    Each shard is whole or absent; those that an interrupted run of the same teachers and pictures has left are kept. A
    process with a `work_split` labels its own share of the shards; a later run over all shards completes the set.
    """
    settings = config.model_dump(mode="json", exclude={"integration"})
    labelers = teachers.labelers()
    inputs = {"teachers": teachers.digest(), "shards": shards.digest()}
    work = fingerprint(__name__, inputs=inputs, uses=[*labelers, *teachers.networks.values()], labeling=settings)
    claim(folder, work, shared=not work_split.is_whole)
    modalities = [labeler.modality for labeler in labelers]
    splits = labeled_splits(shards, config)
    share = work_split.of([(split, shard) for split in splits for shard in shards.shard_names(split)])
    waiting = [(split, shard) for split, shard in share if missing_columns(folder, split, shard, modalities)]
    for split, shard in progress(waiting, "labeling", unit="shard"):
        samples = shards.read(split, SOURCE_COLUMNS, shard)
        labels = label_samples(samples, labelers, config.batch_size)
        keys = [sample["__key__"] for sample in samples]
        write_columns(folder, split, shard, {m: zip(keys, labels[m], strict=True) for m in modalities})
    for split in splits if work_split.is_whole else ():
        finish_split(folder, split, modalities, like=shards)
    return ShardSet(folder)


def labeled_splits(shards: ShardSet, config: LabelingConfig) -> list[str]:
    """Return the splits that are labeled."""
    return [split for split in shards.splits() if split != config.annotated_split]


def label_samples(samples: list[Sample], labelers: list[Labeler], batch_size: int) -> dict[str, list]:
    """Return a column of labels per labeler, in the order of the samples.

    Each batch is handed from labeler to labeler, so that normals find the depth.
    """
    labels: dict[str, list] = {labeler.modality: [] for labeler in labelers}
    for start in range(0, len(samples), batch_size):
        batch = collate(samples[start : start + batch_size])
        for labeler in labelers:
            values = labeler.label(batch)
            if len(values) != len(batch["__key__"]):
                raise ValueError(f"Labeler {labeler.name!r} gave {len(values)} labels for {len(batch['__key__'])} pictures.")
            batch[labeler.modality] = values
            labels[labeler.modality] += values
    return labels
