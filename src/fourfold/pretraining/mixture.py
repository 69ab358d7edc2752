"""Several data sets as one stream of batches, each with its weight, modalities and masking (4M-21 mixes 0.6 + 0.2 + 0.2).

The source of each sample is determined for `PERIOD` samples at a time: each data set has as many as its weight gives,
in a seeded order. So the shares are exact, and the position in every data set follows from the number of samples so
far.
"""

# D data sets

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import count as iterate
from typing import Protocol

import numpy as np

from fourfold.data.cursor import Cursor
from fourfold.data.shards import ShardSet
from fourfold.data.workers import in_workers
from fourfold.masking.masker import Masker
from fourfold.model.batch import MaskedBatch, concatenate
from fourfold.pretraining.config import DatasetConfig
from fourfold.pretraining.loader import BatchOrder, Reader, TokenLoader, TokenSplit
from fourfold.seeds import derive_seed, numpy_generator

PERIOD = 1000  # samples after which every data set has contributed its share
READ_AT_ONCE = 256  # samples that a worker reads at a time


class SampleStream(Protocol):
    """Endless single masked samples: a `TokenLoader` whose batches have one sample."""

    @property
    def num_samples(self) -> int:
        """Samples of an epoch."""

    def batches(self, start: Cursor) -> Iterator[tuple[MaskedBatch, Cursor]]:
        """Yield batches of one sample after a cursor."""


class MixtureLoader:
    """Endless stream of (MaskedBatch, cursor after it) from several data sets; a drop-in for `TokenLoader`.

    The cursor counts samples of the mixture (its epoch stays 0), so that resuming is exact.

    Args:
        streams: the data sets.
        weights: their weights, relative to each other.
        batch_size: samples of a batch, over all processes.
        seed: of the order in which data sets alternate.
        own: samples of each batch that this process gets; by default the share of its rank.
        reader: rank and worker processes, which do not change the batches.
    """

    def __init__(
        self,
        streams: Sequence[SampleStream],
        weights: Sequence[float],
        batch_size: int,
        seed: int,
        own: slice | None = None,
        reader: Reader | None = None,
    ) -> None:
        if len(streams) != len(weights) or not streams:
            raise ValueError(
                f"A mixture needs one weight per data set, got {len(weights)} weights for {len(streams)} data sets."
            )
        self.streams, self.batch_size, self.seed = streams, batch_size, seed
        self.counts_D = shares_of(weights, PERIOD)
        self.reader = reader or Reader()
        self.own = own or self.reader.slice_of(batch_size)
        # Open streams and the sample of the mixture that they point to; each worker process has its own copy.
        self._iterators: list[Iterator[tuple[MaskedBatch, Cursor]]] = []
        self._position: int | None = None
        # The order of the period that was used last: consecutive samples share it, and drawing it costs a permutation.
        self._last_period = -1
        self._last_order = np.zeros(0, np.int64)

    def __iter__(self) -> Iterator[tuple[MaskedBatch, Cursor]]:
        return self.batches(Cursor())

    def batches(self, start: Cursor) -> Iterator[tuple[MaskedBatch, Cursor]]:
        """Yield the share of this process of all batches after a cursor, without end."""
        # A worker that skips the batches of others opens the streams again each time, so it reads many batches in a row.
        count = max(1, READ_AT_ONCE // self.batch_size) if self.reader.num_workers else 1
        offset, self._position = start.offset, None

        def first_samples() -> Iterator[int]:
            return iterate(start.offset, count * self.batch_size)

        for batches in in_workers(first_samples, partial(self._read, count), self.reader):
            for batch in batches:
                offset += self.batch_size
                yield batch, Cursor(0, offset)

    def _read(self, count: int, offset: int) -> tuple[MaskedBatch, ...]:
        """Return the share of this process of `count` batches, starting at sample `offset` of the mixture."""
        if self._position != offset:
            self._iterators = [
                stream.batches(Cursor(*divmod(int(taken), stream.num_samples)))
                for stream, taken in zip(self.streams, self.taken_before(offset), strict=True)
            ]
        self._position = offset + count * self.batch_size
        samples = [next(self._iterators[self.source_of(sample)])[0] for sample in range(offset, self._position)]
        firsts = range(0, len(samples), self.batch_size)
        return tuple(concatenate(samples[first : first + self.batch_size][self.own]) for first in firsts)

    def source_of(self, sample: int) -> int:
        """Return the index of the data set that a sample of the mixture comes from."""
        period, within = divmod(sample, PERIOD)
        return int(self._order(period)[within])

    def taken_before(self, sample: int) -> np.ndarray:
        """Return int64 (D,): the number of samples of each data set before a sample of the mixture."""
        period, within = divmod(sample, PERIOD)
        return period * self.counts_D + np.bincount(self._order(period)[:within], minlength=len(self.counts_D))

    def _order(self, period: int) -> np.ndarray:
        """Return int64 (PERIOD,): the index of the data set of each sample of a period."""
        if period != self._last_period:
            sources = np.repeat(np.arange(len(self.counts_D)), self.counts_D)
            self._last_order = numpy_generator(self.seed, "mixture", period).permutation(sources)
            self._last_period = period
        return self._last_order


def mixture_loader(
    tokens: ShardSet,
    images: ShardSet | None,
    datasets: Mapping[str, DatasetConfig],
    masker: Masker,
    order: BatchOrder,
    reader: Reader | None = None,
) -> MixtureLoader:
    """Return the mixture of data sets that are splits of one set of token shards.

    Args:
        tokens, images: as in `TokenSplit`.
        datasets: the data sets, each with its own order and an equal share of the cache.
        masker: masks the data sets without their own rules.
        order: batch size and seed of the mixture, and shards of each data set that are shuffled together.
        reader: as for `MixtureLoader`.
    """
    reader = reader or Reader()
    cache_bytes = reader.cache_bytes // len(datasets) // max(1, reader.num_workers)
    streams = []
    for name, dataset in datasets.items():
        own_masker = Masker(dataset.masking or masker.config, masker.model, masker.special, only=dataset.modalities)
        own_order = replace(order, batch_size=1, seed=derive_seed(order.seed, "mixture", name))
        data = TokenSplit(tokens, images, dataset.split, dataset.source)
        streams.append(TokenLoader(data, own_masker, own_order, Reader(cache_bytes=cache_bytes)))
    weights = [dataset.weight for dataset in datasets.values()]
    return MixtureLoader(streams, weights, order.batch_size, order.seed, reader=reader)


def shares_of(weights: Sequence[float], total: int) -> np.ndarray:
    """Return int64 (D,) that sum to `total`, in proportion to the weights; the largest remainders are rounded up.

    Raises:
        ValueError: if a weight is so small that its share is 0.
    """
    exact_D = np.array(weights, np.float64) / sum(weights) * total
    counts_D = np.floor(exact_D).astype(np.int64)
    counts_D[np.argsort(counts_D - exact_D, kind="stable")[: total - counts_D.sum()]] += 1
    if not counts_D.all():
        raise ValueError(f"Weights {list(weights)}: the smallest gets no sample of {total}. Raise it or remove its data set.")
    return counts_D
