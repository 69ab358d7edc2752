"""All shards as token ids, made once, so that pretraining reads 64 small integers where there was an image."""

# B samples of a shard, K crops, L tokens

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fourfold.data.codecs import CROP_SETTINGS
from fourfold.data.crops import CropConfig, crop_values, draw_crops, resized
from fourfold.data.shards import Sample, ShardSet, collate, finish_split, missing_columns, write_columns
from fourfold.data.work_split import NO_SPLIT, WorkSplit
from fourfold.modalities import token_modality
from fourfold.progress import progress
from fourfold.reuse import claim, fingerprint
from fourfold.seeds import numpy_generator
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.tokenizers.training.tokenizer_set import FROM_THE_SOURCE


def pretokenize(
    shards: ShardSet,
    labels: ShardSet,
    tokenizers: TokenizerSet,
    config: CropConfig,
    folder: Path,
    splits: Sequence[str],
    seed: int = 0,
    work_split: WorkSplit = NO_SPLIT,
) -> ShardSet:
    """Write int16 (K, L) for every token modality of every sample of `splits`, and crop_settings int32 (K, 5): `draw_crops`.

    Shards and keys are those of `shards`. Whole shards that a killed run of the same work left are kept; equal inputs give
    equal bytes. Crops are drawn from (seed, split, shard), so they depend neither on what was done before nor on the
    `work_split` of this process. A later run over all shards completes the set.
    """
    inputs = {"tokenizers": tokenizers.digest(), "shards": shards.digest(), "labels": labels.digest()}
    made_from = fingerprint(__name__, inputs=inputs, crops=config, splits=list(splits), seed=seed)
    claim(folder, made_from, shared=not work_split.is_whole)
    columns = [*tokenizers.modalities, CROP_SETTINGS]
    work = work_split.of([(split, shard) for split in splits for shard in shards.shard_names(split)])
    for split, shard in progress(work, "pretokenize", unit="shards"):
        if missing_columns(folder, split, shard, columns):
            rngs = numpy_generator(seed, "crops", split, shard), numpy_generator(seed, "sequences", split, shard)
            _write(folder, split, shard, read_labels(shards, labels, split, shard), tokenizers, config, *rngs)
    for split in splits if work_split.is_whole else ():
        finish_split(folder, split, columns, like=shards)
    return ShardSet(folder)


def read_labels(shards: ShardSet, labels: ShardSet, split: str, shard: str) -> Sample:
    """Return one shard's samples as columns, from both sets; raises ValueError when their keys differ."""
    source = collate(shards.read(split, FROM_THE_SOURCE, shard))
    others = [name for name in labels.modalities(split) if name not in FROM_THE_SOURCE]
    labeled = collate(labels.read(split, others, shard))
    if source["__key__"] != labeled["__key__"]:
        raise ValueError(f"{split}/{shard}: images and labels do not hold the same keys. Run pseudo_labeling again.")
    return source | labeled


def _write(
    folder: Path,
    split: str,
    shard: str,
    sample: Sample,
    tokenizers: TokenizerSet,
    config: CropConfig,
    crop_rng: np.random.Generator,
    sequence_rng: np.random.Generator,
) -> None:
    keys, size = sample["__key__"], _image_size(sample)
    crops_BK5 = draw_crops(len(keys), size, config, crop_rng)
    columns = {CROP_SETTINGS: zip(keys, crops_BK5, strict=True)}
    for modality in tokenizers.modalities:
        name, (_, at, side) = token_modality(modality).label, modality.partition("@")
        seen = [crop_values(name, sample[name], crops_BK5[:, k], size) for k in range(config.num_crops)]
        seen = [resized(name, values, int(side)) for values in seen] if at else seen
        crops = [tokenizers.tokens(modality, values, sequence_rng) for values in seen]
        columns[modality] = zip(keys, np.stack(crops, axis=1), strict=True)
    write_columns(folder, split, shard, columns)


def _image_size(sample: Sample) -> tuple[int, int]:
    """Return height and width of a shard's images; raises ValueError when they differ."""
    if not isinstance(sample["rgb"], np.ndarray):
        raise ValueError("The images of a shard differ in size; tokenizers need one. Run ingestion again.")
    height, width = sample["rgb"].shape[1:3]
    return height, width
