"""Masked batches from token shards, in an order that depends on (seed, epoch) alone.

Each epoch: the shards are permuted, taken a few at a time, and the samples of those few are shuffled together. So memory is
bounded, and a cursor (epoch, samples handed out) is all that a resumed run needs: it goes straight to the shards in question.

Batches are those of the whole run, whoever reads them: a rank takes its slice of each, a worker process every n-th unit of
work. So neither changes what is learned, a run goes on anywhere with any number of both, and no sample is lost or repeated.
"""

# B batch (of all ranks), K crops, L tokens, H W image height and width, C 3 colors, R rows of some shards

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from fourfold.data.codecs import CROP_SETTINGS
from fourfold.data.crops import crop_values, resized
from fourfold.data.cursor import Cursor, epoch_order, share_of
from fourfold.data.manifests import require_equal_keys
from fourfold.data.open_shards import Columns, OpenShard, OpenShards
from fourfold.data.shards import ShardSet
from fourfold.data.workers import in_workers
from fourfold.masking.masker import Masker
from fourfold.modalities import base_name
from fourfold.model.batch import MaskedBatch, concatenate
from fourfold.seeds import numpy_generator

MASKED_AT_ONCE = 64  # samples; several small batches cost little more to mask than one


@dataclass(frozen=True)
class Reader:
    """Who reads: which rank of how many, with how many worker processes. It never changes what the batches of a run are."""

    rank: int = 0
    world_size: int = 1
    num_workers: int = 0  # 0: in the process that trains
    prefetch: int = 2  # units of work that each worker is ahead
    pin_memory: bool = False  # page-locked, so that copies to a GPU are asynchronous

    def slice_of(self, batch_size: int) -> slice:
        """Return which samples of a batch are this rank's; raises ValueError when some rank would get none."""
        return share_of(batch_size, self.rank, self.world_size)


@dataclass(frozen=True)
class Unit:
    """Samples `first` to `first + len(row_R)` of an epoch, whole batches: row `row_R` of shard `names[shard_R]` each."""

    epoch: int
    first: int
    names: tuple[str, ...]
    shard_R: np.ndarray
    row_R: np.ndarray


class TokenLoader:
    """Endless stream of (MaskedBatch, cursor behind it) over one split; iterate it, or start anywhere with `batches(cursor)`.

    `tokens` holds int16 (K, L) per token modality and crop_settings; `images` the pixels under "rgb", None if the model has
    none. `shards_at_once` bounds memory and how far a sample can be from its neighbors on disk; decoded shards are kept up to
    `cache_bytes`. Raises ValueError when the split is smaller than a batch, a batch smaller than the number of ranks, or tokens
    and images are not aligned.
    """

    def __init__(
        self,
        tokens: ShardSet,
        images: ShardSet | None,
        split: str,
        batch_size: int,
        masker: Masker,
        seed: int,
        shards_at_once: int = 8,
        cache_bytes: int = 512 * 2**20,
        reader: Reader | None = None,
    ) -> None:
        self.tokens, self.images, self.split, self.masker, self.seed = tokens, images, split, masker, seed
        self.batch_size, self.shards_at_once, self.reader = batch_size, shards_at_once, reader or Reader()
        names = {modality.name: modality.kind for modality in masker.model.modalities}
        there = tokens.modalities(split)
        self.token_names = [name for name, kind in names.items() if kind != "pixels" and name in there]
        self.pixel_name = None if images is None else masker.pixels
        self._shards = OpenShards(self._open, cache_bytes // max(1, self.reader.num_workers))
        self.num_samples = tokens.num_samples(split)
        self._check()

    def __iter__(self) -> Iterator[tuple[MaskedBatch, Cursor]]:
        return self.batches(Cursor())

    def batches(self, start: Cursor) -> Iterator[tuple[MaskedBatch, Cursor]]:
        """Yield batches from a cursor on, without end; what does not fill a batch at the end of an epoch is left out."""
        mine = self.reader.slice_of(self.batch_size)
        size = mine.stop - mine.start
        for epoch, first, masked in in_workers(lambda: self._units(start), self._read, self.reader):
            for index in range(masked.batch_size // size):
                cursor = Cursor(epoch, first + (index + 1) * self.batch_size)
                if cursor > start:
                    yield masked[index * size : (index + 1) * size], cursor

    def _units(self, start: Cursor) -> Iterator[Unit]:
        """Yield the units of work of all epochs, from the one that a cursor points into."""
        while True:
            unit = self.batch_size * max(1, MASKED_AT_ONCE // self.batch_size)
            yield from self._units_of(start.epoch, start.offset // unit * unit, unit)
            start = Cursor(start.epoch + 1)

    def _units_of(self, epoch: int, first: int, size: int) -> Iterator[Unit]:
        """Yield the units of an epoch from sample `first` on; the last one holds what fills whole batches."""
        names: tuple[str, ...] = ()
        waiting_2R = np.zeros((2, 0), np.int64)
        for group, order_2R in self._groups(epoch, first):
            waiting_2R = np.concatenate([waiting_2R, order_2R + np.array([[len(names)], [0]])], 1)
            names += group
            while waiting_2R.shape[1] >= size:
                yield Unit(epoch, first, names, *waiting_2R[:, :size])
                waiting_2R, first = waiting_2R[:, size:], first + size
            first_used = int(waiting_2R[0].min(initial=len(names)))  # shards that nothing is left of are let go
            names, waiting_2R = names[first_used:], waiting_2R - np.array([[first_used], [0]])
        rest = waiting_2R.shape[1] // self.batch_size * self.batch_size
        if rest:
            yield Unit(epoch, first, names, *waiting_2R[:, :rest])

    def _groups(self, epoch: int, first: int) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
        """Yield the names of a few shards, and the order of their samples (index of shard, row), without the first `first`."""
        counts = {name: len(keys) for name, keys in self.tokens.keys_by_shard(self.split).items()}
        names = [list(counts)[index] for index in epoch_order(len(counts), self.seed, "shards", self.split, epoch)]
        for start in range(0, len(names), self.shards_at_once):
            group = tuple(names[start : start + self.shards_at_once])
            sizes = np.array([counts[name] for name in group])
            if first < sizes.sum():
                order_R = epoch_order(int(sizes.sum()), self.seed, "samples", self.split, epoch, start)[first:]
                shard_R = np.repeat(np.arange(len(group)), sizes)[order_R]
                yield group, np.stack([shard_R, order_R - (sizes.cumsum() - sizes)[shard_R]])
            first = max(0, first - int(sizes.sum()))

    def _read(self, unit: Unit) -> tuple[int, int, MaskedBatch]:
        """Return epoch and first sample of a unit, and this rank's samples of it, masked.

        Masks are drawn for up to `MASKED_AT_ONCE` samples from one generator: a rank of many draws few that are not its own.
        """
        mine = self.reader.slice_of(self.batch_size)
        is_mine_R = np.arange(len(unit.row_R)) % self.batch_size
        is_mine_R = (is_mine_R >= mine.start) & (is_mine_R < mine.stop)
        parts = []
        for start in range(0, len(unit.row_R), MASKED_AT_ONCE):
            piece = slice(start, start + MASKED_AT_ONCE)
            if is_mine_R[piece].any():
                rng = numpy_generator(self.seed, "masking", self.split, unit.epoch, unit.first + start)
                masked = self._mask(self._shards.take(unit.names, unit.shard_R[piece], unit.row_R[piece]), rng)
                whole = is_mine_R[piece].all()
                parts.append(masked if whole else masked[torch.from_numpy(np.flatnonzero(is_mine_R[piece]))])
        return unit.epoch, unit.first, concatenate(parts)

    def _open(self, name: str) -> OpenShard:
        """Open one shard: tokens (K, L), crops (K, 5), pixels (H, W, 3) a sample."""
        sources = [(self.tokens, [*self.token_names, CROP_SETTINGS])]
        if self.images is not None and self.pixel_name is not None:
            sources.append((self.images, [base_name(self.pixel_name)]))
        return OpenShard(sources, self.split, name)

    def _mask(self, samples: Columns, rng: np.random.Generator) -> MaskedBatch:
        """Draw a crop of each sample, the same for all its modalities, and mask."""
        crops_BK5 = samples[CROP_SETTINGS]
        rows = np.arange(len(crops_BK5))
        crop = rng.integers(crops_BK5.shape[1], size=len(rows))
        tokens = {name: samples[name][rows, crop] for name in self.token_names}
        masked = self.masker(tokens, self._pixels(samples, crops_BK5[rows, crop]), rng)
        if self.images is None or self.pixel_name or not any(m.kind == "pixels" for m in self.masker.model.modalities):
            return masked
        # a data set without images in a mixture that has some: with one black patch, whose weights are used in every batch,
        # processes that share gradients all have them
        patch = self.masker.model.patch_size
        return replace(masked, pixels_BHWC=torch.zeros(len(rows), patch, patch, 3, dtype=torch.uint8))

    def _pixels(self, samples: Columns, crops_B5: np.ndarray) -> np.ndarray | None:
        if self.pixel_name is None:
            return None
        name, at, side = self.pixel_name.partition("@")
        pixels = crop_values(name, samples[name], crops_B5)
        return resized(name, pixels, int(side)) if at else pixels

    def _check(self) -> None:
        if self.num_samples < self.batch_size:
            raise ValueError(
                f"Split {self.split!r} has {self.num_samples} samples; a batch needs {self.batch_size}. Lower batch_size."
            )
        self.reader.slice_of(self.batch_size)
        if self.images is None:
            return
        keys, others = (shards.keys_by_shard(self.split) for shards in (self.tokens, self.images))
        where = f"{self.images.root / self.split} (images of the tokens under {self.tokens.root}; run tokenizer_training again)"
        require_equal_keys(keys, others, where)


def fixed_batches(loader: TokenLoader, num_samples: int) -> list[MaskedBatch]:
    """Return the first masked batches of a loader, at most `num_samples` samples: the same at every call and in every run."""
    count = max(1, min(num_samples, loader.num_samples) // loader.batch_size)
    stream = iter(loader)
    return [next(stream)[0] for _ in range(count)]
