"""Masked batches from token shards, in an order that depends on (seed, epoch) only.

In each epoch the shards are permuted and taken a few at a time, and the samples of these few are shuffled together.
Memory is therefore bounded, and a cursor (epoch, number of samples) is all that a resumed run needs: it opens the right
shards at once.

The order is defined for the batches of the whole run: a process takes its share of each batch, a worker every n-th
slice of the epoch. So neither number changes what is learned, a run may resume with other numbers, and no sample is
lost or repeated.
"""

# B batch (over all processes), C captions, K crops, L tokens, H W image height and width, 3 colors, R samples of some shards

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from fourfold.data.codecs import CROP_SETTINGS
from fourfold.data.crops import crop_values, resized
from fourfold.data.cursor import Cursor, epoch_order, share_of
from fourfold.data.manifests import CAPTION, require_aligned
from fourfold.data.open_shards import Columns, OpenShard, OpenShards
from fourfold.data.shards import ShardSet, source_of
from fourfold.data.workers import in_workers
from fourfold.masking.masker import Masker
from fourfold.modalities import base_name
from fourfold.model.batch import MaskedBatch, concatenate
from fourfold.seeds import numpy_generator
from fourfold.suggestions import unknown_name

# Samples masked by one call, with one generator: small batches are masked several at a time, because the cost of a call
# hardly depends on its size. Changing this number changes all masks.
MASKED_AT_ONCE = 64


@dataclass(frozen=True)
class TokenSplit:
    """One split of tokenized data.

    Attributes:
        tokens: int16 (K, L) per token modality, and crop_settings int32 (K, 5).
        images: the pixels of the same samples, uint8 (H, W, C) under "rgb"; None if the model has no pixels.
        split: name of the split in both sets.
        source: of several sources, the one whose shards are read; None: all.
    """

    tokens: ShardSet
    images: ShardSet | None
    split: str
    source: str | None = None

    def counts(self) -> dict[str, int]:
        """Return the number of samples of each shard, in order; raises ValueError when no shard is of the source."""
        counts = self.tokens.samples_by_shard(self.split)
        if self.source is None:
            return counts
        found = {name: count for name, count in counts.items() if source_of(name) == self.source}
        if not found:
            known = sorted(filter(None, {source_of(name) for name in counts}))
            raise ValueError(
                unknown_name(f"source of split {self.split!r}:", self.source, known, "See ingestion.source of kind several.")
            )
        return found


@dataclass(frozen=True)
class BatchOrder:
    """What determines the batches of a run.

    Attributes:
        batch_size: samples of a batch, over all processes.
        seed: of order, crops and masks.
        shards_at_once: shards that are shuffled together; bounds memory and how far samples move from their neighbors
            on disk.
    """

    batch_size: int
    seed: int
    shards_at_once: int = 8


@dataclass(frozen=True)
class Reader:
    """Who reads. It never changes the batches of a run.

    Attributes:
        rank, num_processes: the training process, and how many there are.
        num_workers: worker processes per training process; 0 reads in the training process.
        prefetch: slices of work that each worker reads ahead.
        pin_memory: whether batches are in page-locked memory, so that copies to a GPU are asynchronous.
        cache_bytes: bound of the decoded shards that are kept, over all workers.
    """

    rank: int = 0
    num_processes: int = 1
    num_workers: int = 0
    prefetch: int = 2
    pin_memory: bool = False
    cache_bytes: int = 512 * 2**20

    def slice_of(self, batch_size: int) -> slice:
        """Return the samples of a batch that belong to this process.

        Raises:
            ValueError: if a batch has fewer samples than there are processes.
        """
        return share_of(batch_size, self.rank, self.num_processes)


@dataclass(frozen=True)
class EpochSlice:
    """A slice of an epoch in whole batches, the unit of work of a worker.

    Sample `first + i` of the epoch is row `row_R[i]` of shard `names[shard_R[i]]`.
    """

    epoch: int
    first: int
    names: tuple[str, ...]
    shard_R: np.ndarray
    row_R: np.ndarray


class TokenLoader:
    """Endless stream of (MaskedBatch, cursor after it) over one split; `batches(cursor)` starts anywhere.

    Args:
        data: the split.
        masker: draws the masks; its model decides which modalities are read.
        order: determines the batches.
        reader: who reads them; by default this process alone.

    Raises:
        ValueError: if the split is smaller than a batch, a batch has fewer samples than there are processes, or tokens
            and images do not have the same samples.
    """

    def __init__(self, data: TokenSplit, masker: Masker, order: BatchOrder, reader: Reader | None = None) -> None:
        self.data, self.masker, self.order, self.reader = data, masker, order, reader or Reader()
        kinds = {modality.name: modality.kind for modality in masker.model.modalities}
        stored = data.tokens.modalities(data.split)
        self.token_names = [name for name, kind in kinds.items() if kind != "pixels" and name in stored]
        self.pixel_name = None if data.images is None else masker.pixels
        self._shards = OpenShards(self._open, self.reader.cache_bytes // max(1, self.reader.num_workers))
        self.counts = data.counts()
        self.num_samples = sum(self.counts.values())
        self._check()

    def __iter__(self) -> Iterator[tuple[MaskedBatch, Cursor]]:
        return self.batches(Cursor())

    def batches(self, start: Cursor) -> Iterator[tuple[MaskedBatch, Cursor]]:
        """Yield the share of this process of all batches after a cursor, without end.

        Samples at the end of an epoch that do not fill a batch are left out.
        """
        own = self.reader.slice_of(self.order.batch_size)
        size = own.stop - own.start
        for epoch, first, masked in in_workers(lambda: self._slices(start), self._read, self.reader):
            for index in range(masked.batch_size // size):
                cursor = Cursor(epoch, first + (index + 1) * self.order.batch_size)
                if cursor > start:
                    yield masked[index * size : (index + 1) * size], cursor

    def _slices(self, start: Cursor) -> Iterator[EpochSlice]:
        """Yield the slices of all epochs, from the one that contains a cursor."""
        batch_size = self.order.batch_size
        size = batch_size * max(1, MASKED_AT_ONCE // batch_size)
        while True:
            yield from self._slices_of_epoch(start.epoch, start.offset // size * size, size)
            start = Cursor(start.epoch + 1)

    def _slices_of_epoch(self, epoch: int, first: int, size: int) -> Iterator[EpochSlice]:
        """Yield the slices of an epoch from sample `first` on; the last one holds the remaining whole batches."""
        names: tuple[str, ...] = ()
        waiting_2R = np.zeros((2, 0), np.int64)  # shard and row of samples that do not fill a slice yet
        for group, order_2R in self._shard_groups(epoch, first):
            waiting_2R = np.concatenate([waiting_2R, order_2R + np.array([[len(names)], [0]])], 1)
            names += group
            while waiting_2R.shape[1] >= size:
                yield EpochSlice(epoch, first, names, *waiting_2R[:, :size])
                waiting_2R, first = waiting_2R[:, size:], first + size
            # drop the names of shards without waiting samples, so that a slice names few shards
            first_used = int(waiting_2R[0].min(initial=len(names)))
            names, waiting_2R = names[first_used:], waiting_2R - np.array([[first_used], [0]])
        rest = waiting_2R.shape[1] // self.order.batch_size * self.order.batch_size
        if rest:
            yield EpochSlice(epoch, first, names, *waiting_2R[:, :rest])

    def _shard_groups(self, epoch: int, first: int) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        """Yield the names of a few shards and the order of their samples, int64 (2, R): index of the shard, row.

        The first `first` samples of the epoch are left out.
        """
        split, seed, shards_at_once = self.data.split, self.order.seed, self.order.shards_at_once
        counts = self.counts
        names = [list(counts)[index] for index in epoch_order(len(counts), seed, "shards", split, epoch)]
        for start in range(0, len(names), shards_at_once):
            group = tuple(names[start : start + shards_at_once])
            sizes = np.array([counts[name] for name in group])
            if first < sizes.sum():
                order_R = epoch_order(int(sizes.sum()), seed, "samples", split, epoch, start)[first:]
                shard_R = np.repeat(np.arange(len(group)), sizes)[order_R]
                yield group, np.stack([shard_R, order_R - (sizes.cumsum() - sizes)[shard_R]])
            first = max(0, first - int(sizes.sum()))

    def _read(self, work: EpochSlice) -> tuple[int, int, MaskedBatch]:
        """Return epoch and first sample of a slice, and the samples of it that belong to this process, masked.

        Masks of up to `MASKED_AT_ONCE` samples are drawn from one generator, so that they do not depend on the number
        of processes. A process therefore also masks some samples of others, but reads no slice without its own.
        """
        own = self.reader.slice_of(self.order.batch_size)
        is_own_R = np.arange(len(work.row_R)) % self.order.batch_size
        is_own_R = (is_own_R >= own.start) & (is_own_R < own.stop)
        batches = []
        for start in range(0, len(work.row_R), MASKED_AT_ONCE):
            rows = slice(start, start + MASKED_AT_ONCE)
            if is_own_R[rows].any():
                rng = numpy_generator(self.order.seed, "masking", self.data.split, work.epoch, work.first + start)
                samples = self._shards.take(work.names, work.shard_R[rows], work.row_R[rows])
                choice = numpy_generator(self.order.seed, "captions", self.data.split, work.epoch, work.first + start)
                masked = self._mask(self._with_one_caption(samples, choice), rng)
                all_own = is_own_R[rows].all()
                batches.append(masked if all_own else masked[torch.from_numpy(np.flatnonzero(is_own_R[rows]))])
        return work.epoch, work.first, concatenate(batches)

    def _open(self, name: str) -> OpenShard:
        """Open one shard: tokens (K, L), crops (K, 5), pixels (H, W, 3) of each sample."""
        sources = [(self.data.tokens, [*self.token_names, CROP_SETTINGS])]
        if self.data.images is not None and self.pixel_name is not None:
            sources.append((self.data.images, [base_name(self.pixel_name)]))
        return OpenShard(sources, self.data.split, name)

    def _with_one_caption(self, samples: Columns, rng: np.random.Generator) -> Columns:
        """Return samples with one of their captions for all crops; it is drawn again in each epoch.

        Captions (R, C, L) have one row each, and rows of zeros after the last one. Where every sample has one caption, it
        is in all rows.
        """
        if CAPTION not in self.token_names:
            return samples
        captions_RCL = samples[CAPTION]
        number_R = np.maximum(captions_RCL.any(axis=2).sum(axis=1), 1)
        row_R = (rng.random(len(number_R)) * number_R).astype(np.int64)
        chosen_RL = captions_RCL[np.arange(len(row_R)), row_R]
        num_crops = samples[CROP_SETTINGS].shape[1]
        return {**samples, CAPTION: np.repeat(chosen_RL[:, None], num_crops, axis=1)}

    def _mask(self, samples: Columns, rng: np.random.Generator) -> MaskedBatch:
        """Draw a crop of each sample, the same for all its modalities, and mask."""
        crops_BK5 = samples[CROP_SETTINGS]
        rows = np.arange(len(crops_BK5))
        crop_B = rng.integers(crops_BK5.shape[1], size=len(rows))
        tokens = {name: samples[name][rows, crop_B] for name in self.token_names}
        masked = self.masker(tokens, self._pixels(samples, crops_BK5[rows, crop_B]), rng)
        has_pixels = any(modality.kind == "pixels" for modality in self.masker.model.modalities)
        if self.data.images is None or self.pixel_name or not has_pixels:
            return masked
        # A data set without images in a mixture with images: one black patch makes every batch use the weights of the
        # patch embedding, because all processes that exchange gradients must have a gradient of the same parameters.
        patch = self.masker.model.patch_size
        return replace(masked, pixels_BHWC=torch.zeros(len(rows), patch, patch, 3, dtype=torch.uint8))

    def _pixels(self, samples: Columns, crops_B5: np.ndarray) -> np.ndarray | None:
        if self.pixel_name is None:
            return None
        name, at, side = self.pixel_name.partition("@")
        pixels = crop_values(name, samples[name], crops_B5)
        return resized(name, pixels, int(side)) if at else pixels

    def _check(self) -> None:
        data, batch_size = self.data, self.order.batch_size
        if self.num_samples < batch_size:
            raise ValueError(
                f"Split {data.split!r} has {self.num_samples} samples; a batch needs {batch_size}. Lower batch_size."
            )
        self.reader.slice_of(batch_size)
        if data.images is None:
            return
        where = f"{data.images.root / data.split} (images of the tokens under {data.tokens.root}; run tokenizer_training again)"
        require_aligned(data.tokens.alignment(data.split), data.images.alignment(data.split), where)


def fixed_batches(loader: TokenLoader, num_samples: int) -> list[MaskedBatch]:
    """Return the first batches of a loader, at most `num_samples` samples: the same at every call and in every run."""
    count = max(1, min(num_samples, loader.num_samples) // loader.order.batch_size)
    stream = iter(loader)
    return [next(stream)[0] for _ in range(count)]
