"""Pre-tokenization: all shards as token ids, computed once, so that pretraining reads integers instead of images."""

# B samples of a shard, K crops, L tokens

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fourfold.data.codecs import CROP_SETTINGS
from fourfold.data.crops import CropConfig, crop_values, draw_crops, resized
from fourfold.data.shards import Sample, ShardSet, finish_split, missing_columns, write_columns
from fourfold.data.work_split import NO_SPLIT, WorkSplit
from fourfold.modalities import token_modality
from fourfold.progress import progress
from fourfold.reuse import claim, fingerprint
from fourfold.seeds import numpy_generator
from fourfold.tokenizers.stored_values import read_shard
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.training.run_context import RunContext


def pretokenize(
    shards: ShardSet,
    labels: ShardSet,
    tokenizers: TokenizerSet,
    crops: CropConfig,
    context: RunContext,
    *,
    splits: Sequence[str],
    work_split: WorkSplit = NO_SPLIT,
) -> ShardSet:
    """Write every token modality of every sample of `splits` as int16 (K, L), and `crop_settings` as int32 (K, 5).

    Shards and keys are those of `shards`; the five numbers of a crop are those of `draw_crops`. Complete shards that a
    killed run of the same work left are kept, and equal inputs give equal bytes. Crops are drawn from (seed, split,
    shard), so they depend neither on earlier work nor on `work_split`.

    Args:
        shards: cleaned samples: rgb and captions.
        labels: all other modalities, with the same keys.
        tokenizers: what turns values into ids.
        crops: how many crops of each sample, and how they are drawn.
        context: seed, and the folder (required) that the tokens are written to.
        splits: which splits are tokenized.
        work_split: the share of the shards that this process tokenizes. A later run over all shards completes the set.

    Raises:
        ValueError: images and labels have different keys, or the images of a shard differ in size.
    """
    folder, seed = context.root, context.seed
    inputs = {"tokenizers": tokenizers.digest(), "shards": shards.digest(), "labels": labels.digest()}
    made_from = fingerprint(__name__, inputs=inputs, crops=crops, splits=list(splits), seed=seed)
    claim(folder, made_from, shared=not work_split.is_whole)
    names = [*tokenizers.modalities, CROP_SETTINGS]
    work = work_split.of([(split, shard) for split in splits for shard in shards.shard_names(split)])
    for split, shard in progress(work, "pretokenize", unit="shards"):
        if missing_columns(folder, split, shard, names):
            rngs = numpy_generator(seed, "crops", split, shard), numpy_generator(seed, "sequences", split, shard)
            columns = _token_columns(read_shard(shards, labels, split, shard), tokenizers, crops, *rngs)
            write_columns(folder, split, shard, columns)
    # only a run over all shards may declare a split complete
    for split in splits if work_split.is_whole else ():
        finish_split(folder, split, names, like=shards)
    return ShardSet(folder)


def _token_columns(
    sample: Sample,
    tokenizers: TokenizerSet,
    config: CropConfig,
    crop_rng: np.random.Generator,
    sequence_rng: np.random.Generator,
) -> dict[str, Iterable[tuple[str, Any]]]:
    """Return (key, ids (K, L)) of each sample of a shard for each token modality, and (key, crops (K, 5))."""
    keys, image_size = sample["__key__"], _image_size(sample)
    crops_BK5 = draw_crops(len(keys), image_size, config, crop_rng)
    columns: dict[str, Iterable[tuple[str, Any]]] = {CROP_SETTINGS: zip(keys, crops_BK5, strict=True)}
    for modality in tokenizers.modalities:
        name, (_, _, side) = token_modality(modality).label, modality.partition("@")
        cropped = [crop_values(name, sample[name], crops_BK5[:, k], image_size) for k in range(config.num_crops)]
        if side:  # `tok_rgb@32`: the same crops at another resolution
            cropped = [resized(name, values, int(side)) for values in cropped]
        tokens_BKL = np.stack([tokenizers.tokens(modality, values, sequence_rng) for values in cropped], axis=1)
        columns[modality] = zip(keys, tokens_BKL, strict=True)
    return columns


def _image_size(sample: Sample) -> tuple[int, int]:
    """Return height and width of a shard's images; raises ValueError when they differ."""
    if not isinstance(sample["rgb"], np.ndarray):
        raise ValueError("The images of a shard differ in size; tokenizers need one size. Run ingestion again.")
    height, width = sample["rgb"].shape[1:3]
    return height, width
