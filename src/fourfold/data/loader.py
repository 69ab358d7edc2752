"""Masked batches from token shards, in an order that depends on (seed, epoch) alone.

Each epoch: the shards are permuted, read a few at a time, and the samples of those few are shuffled together. So memory is
bounded, and a cursor (epoch, samples handed out) is all that a resumed run needs: it goes straight to the shards in question.
"""

# B batch, K crops, L tokens, H W image height and width, C 3 colours

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np

from fourfold.data.cursor import Cursor, epoch_order
from fourfold.data.shards import ShardSet, collate
from fourfold.masking.masker import Masker
from fourfold.model.batch import MaskedBatch
from fourfold.seeds import numpy_generator
from fourfold.tokenizers.crops import crop_values

CROP_SETTINGS = "crop_settings"
MASKED_AT_ONCE = 64  # samples; several small batches cost little more to mask than one

Columns = dict[str, np.ndarray]  # modality → (samples, ...)


class TokenLoader:
    """Endless stream of (MaskedBatch, cursor behind it) over one split; iterate it, or start anywhere with `batches(cursor)`.

    `tokens` holds int16 (K, L) per token modality and crop_settings; `images` the pixels under "rgb", None if the model has
    none. `shards_at_once` bounds memory and how far a sample can be from its neighbours on disk; decoded shards are kept up to
    `cache_bytes`. Raises ValueError when the split is smaller than a batch or tokens and images are not aligned.
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
    ) -> None:
        self.tokens, self.images, self.split, self.masker, self.seed = tokens, images, split, masker, seed
        self.batch_size, self.shards_at_once = batch_size, shards_at_once
        names = {modality.name: modality.kind for modality in masker.model.modalities}
        there = tokens.modalities(split)
        self.token_names = [name for name, kind in names.items() if kind != "pixels" and name in there]
        self.pixel_name = next((name for name, kind in names.items() if kind == "pixels" and images is not None), None)
        self._cache = _Cache(cache_bytes)
        self._check_alignment()
        self.num_samples = tokens.num_samples(split)
        if self.num_samples < batch_size:
            raise ValueError(f"Split {split!r} has {self.num_samples} samples; a batch needs {batch_size}. Lower batch_size.")

    def __iter__(self) -> Iterator[tuple[MaskedBatch, Cursor]]:
        return self.batches(Cursor())

    def batches(self, start: Cursor) -> Iterator[tuple[MaskedBatch, Cursor]]:
        """Yield batches from a cursor on, without end; what does not fill a batch at the end of an epoch is left out."""
        while True:
            yield from self._epoch(start.epoch, start.offset)
            start = Cursor(start.epoch + 1)

    def _epoch(self, epoch: int, offset: int) -> Iterator[tuple[MaskedBatch, Cursor]]:
        """Mask blocks of several batches at once, each block from a generator of its own, and cut them into batches."""
        block = self.batch_size * max(1, MASKED_AT_ONCE // self.batch_size)
        first = offset // block * block
        for samples in self._blocks(epoch, first, block):
            masked = self._mask(samples, numpy_generator(self.seed, "masking", self.split, epoch, first))
            for behind in range(first + self.batch_size, first + masked.batch_size + 1, self.batch_size):
                if behind > offset:
                    yield masked[behind - self.batch_size - first : behind - first], Cursor(epoch, behind)
            first += masked.batch_size

    def _blocks(self, epoch: int, first: int, block: int) -> Iterator[Columns]:
        """Yield the samples of an epoch from number `first` on, `block` at a time; the last block may be smaller."""
        waiting: Columns = {}
        for group in self._groups(epoch, first):
            waiting = _joined([waiting, group]) if waiting else group
            while _count(waiting) >= block:
                yield _taken(waiting, slice(block))
                waiting = _taken(waiting, slice(block, None))
        rest = _count(waiting) // self.batch_size * self.batch_size if waiting else 0
        if rest:
            yield _taken(waiting, slice(rest))

    def _groups(self, epoch: int, first: int) -> Iterator[Columns]:
        """Yield the shuffled samples of a few shards at a time; shards that lie before sample `first` are not even read."""
        counts = {name: len(keys) for name, keys in self.tokens.keys_by_shard(self.split).items()}
        names = [list(counts)[index] for index in epoch_order(len(counts), self.seed, "shards", self.split, epoch)]
        for start in range(0, len(names), self.shards_at_once):
            group = names[start : start + self.shards_at_once]
            size = sum(counts[name] for name in group)
            if first < size:
                order = epoch_order(size, self.seed, "samples", self.split, epoch, start)
                yield _taken(_joined([self._read(name) for name in group]), order[first:])
            first = max(0, first - size)

    def _read(self, name: str) -> Columns:
        """Return one shard as columns: tokens (samples, K, L), crops (samples, K, 5), pixels (samples, H, W, 3)."""
        if (known := self._cache.get(name)) is not None:
            return known
        columns = collate(self.tokens.read(self.split, [*self.token_names, CROP_SETTINGS], name))
        if self.images is not None and self.pixel_name is not None:
            columns |= collate(self.images.read(self.split, [self.pixel_name], name))
        del columns["__key__"]
        for modality, values in columns.items():
            if not isinstance(values, np.ndarray):
                raise ValueError(f"{self.split}/{modality}/{name}: samples differ in shape. Run its stage again.")
        self._cache.put(name, columns)
        return columns

    def _mask(self, samples: Columns, rng: np.random.Generator) -> MaskedBatch:
        """Draw a crop of each sample, the same for all its modalities, and mask."""
        crops_BK5 = samples[CROP_SETTINGS]
        rows = np.arange(len(crops_BK5))
        crop = rng.integers(crops_BK5.shape[1], size=len(rows))
        tokens = {name: samples[name][rows, crop] for name in self.token_names}
        pixels = crop_values("rgb", samples[self.pixel_name], crops_BK5[rows, crop]) if self.pixel_name else None
        return self.masker(tokens, pixels, rng)

    def _check_alignment(self) -> None:
        if self.images is None or self.tokens.keys_by_shard(self.split) == self.images.keys_by_shard(self.split):
            return
        raise ValueError(
            f"Tokens ({self.tokens.root}) and images ({self.images.root}) of split {self.split!r} do not hold the same keys in "
            "the same shards. Run tokenizer_training again."
        )


class _Cache:
    """Decoded shards, the least recently used thrown out first; what does not fit alone is not kept."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit, self.size = limit_bytes, 0
        self.entries: OrderedDict[str, Columns] = OrderedDict()

    def get(self, name: str) -> Columns | None:
        if name in self.entries:
            self.entries.move_to_end(name)
        return self.entries.get(name)

    def put(self, name: str, columns: Columns) -> None:
        self.entries[name] = columns
        self.size += _bytes(columns)
        while self.size > self.limit:
            self.size -= _bytes(self.entries.popitem(last=False)[1])


def fixed_batches(loader: TokenLoader, num_samples: int) -> list[MaskedBatch]:
    """Return the first masked batches of a loader, at most `num_samples` samples: the same at every call and in every run."""
    count = max(1, min(num_samples, loader.num_samples) // loader.batch_size)
    stream = iter(loader)
    return [next(stream)[0] for _ in range(count)]


def _bytes(columns: Columns) -> int:
    return sum(values.nbytes for values in columns.values())


def _count(columns: Columns) -> int:
    return len(columns[CROP_SETTINGS])


def _taken(columns: Columns, which: Any) -> Columns:
    return {name: values[which] for name, values in columns.items()}


def _joined(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
