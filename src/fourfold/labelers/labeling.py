"""Labeling: every image of every split but the annotated one, a shard at a time."""

import logging
from pathlib import Path
from typing import Any

from fourfold.data.shards import Sample, ShardSet, collate, finish_split, missing_columns, write_columns
from fourfold.data.work_split import NO_SPLIT, WorkSplit
from fourfold.labelers.config import LabelingConfig
from fourfold.labelers.protocol import Batch
from fourfold.labelers.teachers import TeacherSet
from fourfold.modalities import SOURCE_LABELS
from fourfold.progress import progress
from fourfold.reuse import claim, fingerprint

logger = logging.getLogger(__name__)


def label_shards(
    shards: ShardSet, teachers: TeacherSet, config: LabelingConfig, folder: Path, work_split: WorkSplit = NO_SPLIT
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
        samples = shards.read(split, SOURCE_LABELS, shard)
        labels = label_samples(samples, teachers, config.batch_size)
        keys = [sample["__key__"] for sample in samples]
        write_columns(folder, split, shard, {m: zip(keys, labels[m], strict=True) for m in modalities})
    for split in splits if work_split.is_whole else ():
        finish_split(folder, split, modalities, like=shards, class_tables=config.class_tables())
    return ShardSet(folder)


def labeled_splits(shards: ShardSet, config: LabelingConfig) -> list[str]:
    """Return the splits that are labeled: all but the annotated one."""
    return [split for split in shards.splits() if split != config.annotated_split]


def label_samples(samples: list[Sample], teachers: TeacherSet, batch_size: int) -> dict[str, list[Any]]:
    """Return a column of labels for each modality, in the order of the samples.

    Within a batch, every labeler also receives the labels of those before it, so that normals can read the depth.
    """
    labelers = teachers.labelers()
    labels: dict[str, list[Any]] = {labeler.modality: [] for labeler in labelers}
    for start in range(0, len(samples), batch_size):
        batch: Batch = collate(samples[start : start + batch_size])
        outputs = teachers.predict(batch)
        for labeler in labelers:
            values = labeler.label(batch, outputs[labeler.teacher.name] if labeler.teacher else None)
            if len(values) != len(batch["__key__"]):
                raise ValueError(
                    f"Labeler {labeler.name!r} returned {len(values)} labels for {len(batch['__key__'])} images. "
                    "It must return one for each."
                )
            batch = {**batch, labeler.modality: values}
            labels[labeler.modality] += values
    return labels
