"""Several data sets as one stream of batches: each has its weight, its modalities and its masking (4M-21: 0.6 + 0.2 + 0.2).

Which sample comes from which data set is settled for `PERIOD` samples at a time: as many of each as its weight gives, in a
seeded order. So the shares are exact, and where every data set stands follows from the number of samples handed out.
"""

# D data sets

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import count as iterate
from typing import Protocol

import numpy as np
from pydantic import Field

from fourfold.configuration import Config
from fourfold.data.cursor import Cursor
from fourfold.data.shards import ShardSet
from fourfold.data.workers import in_workers
from fourfold.masking.config import MaskingConfig
from fourfold.masking.masker import Masker
from fourfold.model.batch import MaskedBatch, concatenate
from fourfold.pretraining.loader import Reader, TokenLoader
from fourfold.seeds import derive_seed, numpy_generator

PERIOD = 1000  # samples after which every data set has had its share
READ_AT_ONCE = 256  # samples of a worker's unit of work


class DatasetConfig(Config):
    """One data set of a mixture."""

    weight: float = Field(1.0, gt=0)  # relative to the others
    split: str = "train"  # of the token shards
    modalities: tuple[str, ...] | None = None  # those that it is used for; None: all it has
    masking: MaskingConfig | None = None  # None: that of the run


class Stream(Protocol):
    """Single masked samples without end: a `TokenLoader` whose batches have one sample."""

    @property
    def num_samples(self) -> int:
        """Samples of an epoch."""

    def batches(self, start: Cursor) -> Iterator[tuple[MaskedBatch, Cursor]]:
        """Yield batches of one sample from a cursor on."""


class MixtureLoader:
    """Endless stream of (MaskedBatch, cursor behind it) out of several; a drop-in for `TokenLoader`.

    The cursor counts samples of the mixture (its epoch stays 0), so a resumed run goes on exactly. `mine`: the samples of each
    batch that this process gets, by default its rank's. `reader`: its rank, and the worker processes, which change no batch.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        weights: Sequence[float],
        batch_size: int,
        seed: int,
        mine: slice | None = None,
        reader: Reader | None = None,
    ) -> None:
        if len(streams) != len(weights) or not streams:
            raise ValueError(f"A mixture needs a weight for each data set, got {len(streams)} and {len(weights)}.")
        self.streams, self.batch_size, self.seed = streams, batch_size, seed
        self.counts_D = shares_of(weights, PERIOD)
        self.reader = reader or Reader()
        self.mine = mine or self.reader.slice_of(batch_size)
        self._readers: list[Iterator[tuple[MaskedBatch, Cursor]]] = []
        self._position: int | None = None  # sample of the mixture where they stand

    def __iter__(self) -> Iterator[tuple[MaskedBatch, Cursor]]:
        return self.batches(Cursor())

    def batches(self, start: Cursor) -> Iterator[tuple[MaskedBatch, Cursor]]:
        """Yield batches from a cursor on, without end."""
        # a worker that skips what others read masks some samples for nothing, where it starts again: so rather many in a row
        count = max(1, READ_AT_ONCE // self.batch_size) if self.reader.num_workers else 1
        offset, self._position = start.offset, None

        def units() -> Iterator[int]:
            return iterate(start.offset, count * self.batch_size)

        for batches in in_workers(units, partial(self._read, count), self.reader):
            for batch in batches:
                offset += self.batch_size
                yield batch, Cursor(0, offset)

    def _read(self, count: int, offset: int) -> tuple[MaskedBatch, ...]:
        """Return `count` batches, this process's part of each, from sample `offset` of the mixture on."""
        if self._position != offset:
            self._readers = [
                stream.batches(Cursor(*divmod(int(taken), stream.num_samples)))
                for stream, taken in zip(self.streams, self.taken_before(offset), strict=True)
            ]
        self._position = offset + count * self.batch_size
        samples = [next(self._readers[self.source_of(sample)])[0] for sample in range(offset, self._position)]
        firsts = range(0, len(samples), self.batch_size)
        return tuple(concatenate(samples[first : first + self.batch_size][self.mine]) for first in firsts)

    def source_of(self, sample: int) -> int:
        """Return the index of the data set that a sample of the mixture comes from."""
        period, within = divmod(sample, PERIOD)
        return int(self._order(period)[within])

    def taken_before(self, sample: int) -> np.ndarray:
        """Return int64 (D,): how many samples of each data set come before a sample of the mixture."""
        period, within = divmod(sample, PERIOD)
        return period * self.counts_D + np.bincount(self._order(period)[:within], minlength=len(self.counts_D))

    def _order(self, period: int) -> np.ndarray:
        known: tuple[int, np.ndarray] | None = getattr(self, "_known", None)
        if known is None or known[0] != period:
            sources = np.repeat(np.arange(len(self.counts_D)), self.counts_D)
            known = self._known = period, numpy_generator(self.seed, "mixture", period).permutation(sources)
        return known[1]


def mixture_loader(
    tokens: ShardSet,
    images: ShardSet | None,
    datasets: Mapping[str, DatasetConfig],
    masker: Masker,
    batch_size: int,
    seed: int,
    shards_at_once: int,
    cache_bytes: int,
    reader: Reader | None = None,
) -> MixtureLoader:
    """Return the mixture of some data sets that lie in one set of token shards; `masker` masks those without their own rules.

    Each data set has an order of its own; `cache_bytes` are shared. Otherwise as `TokenLoader` and `MixtureLoader`.
    """
    reader = reader or Reader()
    streams = []
    for name, dataset in datasets.items():
        own = Masker(dataset.masking or masker.config, masker.model, masker.special, only=dataset.modalities)
        own_seed, own_cache = derive_seed(seed, "mixture", name), cache_bytes // len(datasets) // max(1, reader.num_workers)
        streams.append(TokenLoader(tokens, images, dataset.split, 1, own, own_seed, shards_at_once, own_cache))
    return MixtureLoader(streams, [dataset.weight for dataset in datasets.values()], batch_size, seed, reader=reader)


def shares_of(weights: Sequence[float], total: int) -> np.ndarray:
    """Return int64 (D,) that sum to `total`, in proportion to the weights: the largest remainders are rounded up.

    Raises ValueError when a weight is too small to get any.
    """
    exact_D = np.array(weights, np.float64) / sum(weights) * total
    counts_D = np.floor(exact_D).astype(np.int64)
    counts_D[np.argsort(counts_D - exact_D, kind="stable")[: total - counts_D.sum()]] += 1
    if not counts_D.all():
        raise ValueError(
            f"Weights {list(weights)}: the smallest gets no sample of {total}. Raise it or leave its data set out."
        )
    return counts_D
