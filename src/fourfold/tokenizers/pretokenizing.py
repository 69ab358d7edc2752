"""Pre-tokenization: all shards as token ids, computed once, so that pretraining reads integers instead of images."""

# B samples of a shard, C captions of a sample, K crops, L tokens

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fourfold.data.captions import captions_of
from fourfold.data.codecs import CROP_SETTINGS
from fourfold.data.crops import CropConfig, crop_values, draw_crops, resized
from fourfold.data.manifests import CAPTION
from fourfold.data.missing import MISSING_TOKEN, Missing, present_rows
from fourfold.data.resuming import ResumedShards
from fourfold.data.shard_store import keep_at
from fourfold.data.shards import Sample, ShardSet, collate, finish_split, write_columns
from fourfold.data.work_split import NO_SPLIT, WorkSplit
from fourfold.local_workers import run_all
from fourfold.modalities import token_modality
from fourfold.reuse import claim, fingerprint
from fourfold.seeds import numpy_generator
from fourfold.tokenizers.stored_values import captions_set, read_shard
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
    shards_at: str | None = None,
) -> ShardSet:
    """Write every token modality of every sample of `splits` as int16 (K, L), and `crop_settings` as int32 (K, 5).

    Shards and keys are those of `shards`; the five numbers of a crop are those of `draw_crops`. Complete shards that a
    killed run of the same work left are kept, and equal inputs give equal bytes. Crops are drawn from (seed, split,
    shard), so they depend neither on earlier work nor on `work_split`.

    A sample that lacks a label has `MISSING_TOKEN` in its place, in every crop: masking leaves the modality out.

    Where samples have several captions, row k of `caption` is caption k instead of that of crop k: a caption does not
    depend on the crop. Rows of zeros follow the last one.

    Args:
        shards: cleaned samples: rgb and captions.
        labels: all other modalities, with the same keys.
        tokenizers: what turns values into ids.
        crops: how many crops of each sample, and how they are drawn.
        context: seed, and the folder (required) that the tokens are written to.
        splits: which splits are tokenized.
        work_split: the share of the shards that this process tokenizes. A later run over all shards completes the set.
        shards_at: where the tokens are kept, see `keep_at`; by default in the folder.

    Raises:
        ValueError: images and labels have different keys, or the images of a shard differ in size.
    """
    folder, seed = context.root, context.seed
    inputs = {"tokenizers": tokenizers.digest(), "shards": shards.digest(), "labels": labels.digest()}
    made_from = fingerprint(__name__, inputs=inputs, crops=crops, splits=list(splits), seed=seed)
    claim(folder, made_from, shared=not work_split.is_whole)
    keep_at(folder, shards_at, shared=not work_split.is_whole)
    names = [*tokenizers.modalities, CROP_SETTINGS]
    share = work_split.of([(split, shard) for split in splits for shard in shards.shard_names(split)])
    resumed = ResumedShards(folder, names)
    waiting = [(split, shard) for split, shard in share if resumed.missing(split, shard)]

    captions = {split: captions_set(shards, labels, split) for split in splits}
    several = max((of_split.manifest(split, CAPTION).max_captions or 0 for split, of_split in captions.items()), default=0)

    def tokenize(at: tuple[str, str]) -> None:
        rngs = numpy_generator(seed, "crops", *at), numpy_generator(seed, "sequences", *at)
        columns = _token_columns(read_shard(shards, labels, *at), tokenizers, crops, *rngs)
        if several and CAPTION in columns:
            sample = captions[at[0]].read(at[0], [CAPTION], at[1])
            columns[CAPTION] = _caption_rows(sample, tokenizers, max(crops.num_crops, several))
        write_columns(folder, *at, columns)

    run_all(tokenize, waiting, "pretokenize", "shards")
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
        rows = present_rows(sample[name])
        present, crops_of = _of_rows(sample[name], rows), crops_BK5[rows]
        cropped = [crop_values(name, present, crops_of[:, k], image_size) for k in range(config.num_crops)] if rows else []
        if side:  # `tok_rgb@32`: the same crops at another resolution
            cropped = [resized(name, values, int(side)) for values in cropped]
        tokens = [tokenizers.tokens(modality, values, sequence_rng) for values in cropped]
        if len(rows) == len(keys):
            tokens_BKL = np.stack(tokens, axis=1)
        else:
            tokens_BKL = _missing_tokens(modality, tokenizers, (len(keys), config.num_crops))
            tokens_BKL[rows] = np.stack(tokens, axis=1) if rows else []
        columns[modality] = zip(keys, tokens_BKL, strict=True)
    return columns


def _of_rows(values: Any, rows: list[int]) -> Any:
    """Return values that are not missing; of a list, those of some rows, as an array where they are arrays of one shape."""
    if len(rows) == len(values):
        return values
    return collate([{"value": values[row]} for row in rows])["value"] if rows else []


def _missing_tokens(modality: str, tokenizers: TokenizerSet, shape: tuple[int, int]) -> np.ndarray:
    """Return (B, K, L) `MISSING_TOKEN`; of vectors, rows of zeros, which mean that there is no vector."""
    vectors = tokenizers.config.vectors.get(token_modality(modality).label)
    if vectors:
        return np.zeros((*shape, *vectors), np.float16)
    return np.full((*shape, tokenizers.lengths()[modality]), MISSING_TOKEN, np.int16)


def _caption_rows(samples: Sequence[Sample], tokenizers: TokenizerSet, num_rows: int) -> Iterable[tuple[str, np.ndarray]]:
    """Yield (key, ids (num_rows, L)) of each sample: one row for each of its captions, then zeros."""
    for sample in samples:
        texts = [""] if isinstance(sample[CAPTION], Missing) else list(captions_of(sample[CAPTION]))
        ids_CL = tokenizers.tokens(CAPTION, texts)
        yield sample["__key__"], np.pad(ids_CL, ((0, num_rows - len(ids_CL)), (0, 0)))


def _image_size(sample: Sample) -> tuple[int, int]:
    """Return height and width of a shard's images; raises ValueError when they differ."""
    if not isinstance(sample["rgb"], np.ndarray):
        raise ValueError("The images of a shard differ in size; tokenizers need one size. Run ingestion again.")
    height, width = sample["rgb"].shape[1:3]
    return height, width
