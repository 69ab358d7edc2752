"""Labels that are not stored: computed again, shard by shard, where they are read.

At 224 pixels the labels of 12 million images take terabytes, their tokens 100 GB. `pseudo_labeling.keep` decides which labels
of `train` are stored; tokenizing computes the others and stores only tokens.
"""

from collections.abc import Sequence
from typing import Any

from fourfold.data import codecs
from fourfold.data.manifests import Manifest
from fourfold.data.shards import Sample, ShardSet
from fourfold.labelers.config import LabelingConfig
from fourfold.labelers.integration import integrated
from fourfold.labelers.labeling import TRAINING_SPLIT, label_samples
from fourfold.labelers.teachers import TeacherSet
from fourfold.modalities import SOURCE_LABELS
from fourfold.reuse import fingerprint


class OnDemandLabels(ShardSet):
    """The stored labels, and those of the other shards of `train`, with the values that storing them would have given.

    Args:
        stored: the integrated labels that are stored; at least one split other than `train`.
        shards: images and captions.
        teachers: the trained teachers.
        config: the labelers and limits.
    """

    def __init__(self, stored: ShardSet, shards: ShardSet, teachers: TeacherSet, config: LabelingConfig) -> None:
        super().__init__(stored.root)
        self.stored, self.shards, self.teachers, self.config = stored, shards, teachers, config
        self._example = next(split for split in stored.splits() if split != TRAINING_SPLIT)

    def splits(self) -> list[str]:
        """Return the names of the splits, sorted."""
        return sorted({*super().splits(), TRAINING_SPLIT})

    def modalities(self, split: str) -> list[str]:
        """Return the modalities of a split; of `train` those of the stored splits."""
        return super().modalities(self._example if split == TRAINING_SPLIT else split)

    def manifest(self, split: str, modality: str) -> Manifest:
        """Return the manifest of one modality; of `train` without the shards that are not stored."""
        if split != TRAINING_SPLIT or split in self.stored.splits():
            return super().manifest(split, modality)
        return super().manifest(self._example, modality).model_copy(update={"shards": ()})

    def samples_by_shard(self, split: str) -> dict[str, int]:
        """Return the number of samples of each shard of a split, in order."""
        return (self.shards if split == TRAINING_SPLIT else self.stored).samples_by_shard(split)

    def read(self, split: str, modalities: Sequence[str], name: str) -> list[Sample]:
        """Return the labels of one shard, computed if they are not stored.

        Raises:
            ValueError: a file is damaged, or a labeler does not return one label for each image.
        """
        if split != TRAINING_SPLIT or name in self._stored_names():
            return super().read(split, modalities, name)
        # 1) Label, with the precision that stored labels have
        images = self.shards.read(split, SOURCE_LABELS, name)
        members, _ = label_samples(images, self.teachers, self.config.batch_size)
        columns = {m: [codecs.decode(m, content) for _, content, _ in column] for m, column in members.items()}
        keys = [image["__key__"] for image in images]
        samples = [{"__key__": key, **{m: column[row] for m, column in columns.items()}} for row, key in enumerate(keys)]
        # 2) Integrate
        integrated(samples, self.config, self.config.class_tables())
        return [{"__key__": sample["__key__"], **{m: sample[m] for m in modalities}} for sample in samples]

    def digest(self) -> str:
        """Return a digest of the stored labels, and of all that the others are computed from."""
        uses = [*self.teachers.labelers(), *self.teachers.networks.values()]
        inputs = {"stored": self.stored.digest(), "shards": self.shards.digest(), "teachers": self.teachers.digest()}
        return fingerprint(__name__, inputs=inputs, uses=uses, labeling=self.config).digest

    def _stored_names(self) -> Any:
        return self.stored.shard_names(TRAINING_SPLIT) if TRAINING_SPLIT in self.stored.splits() else ()


def complete_labels(stored: ShardSet, shards: ShardSet, teachers: TeacherSet | None, config: LabelingConfig) -> ShardSet:
    """Return the labels of all images: the stored ones, and with `keep: sample` or `none` those that are computed when read.

    Raises:
        ValueError: labels must be computed and there are no teachers.
    """
    if config.keep == "all":
        return stored
    if teachers is None:
        raise ValueError(
            f"pseudo_labeling.keep is {config.keep!r}, so labels are computed again, and there are no teachers. Run "
            "pseudo_labeling first, or set keep: all."
        )
    return OnDemandLabels(stored, shards, teachers, config)
