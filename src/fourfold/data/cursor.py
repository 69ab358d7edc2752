"""Where a reader stands in an endless, seeded sequence of epochs: all that an exact resume needs to know about data."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fourfold.seeds import numpy_generator


@dataclass(frozen=True, order=True)
class Cursor:
    """`offset` samples of epoch `epoch` have been handed out. Travels beside each batch; points behind it."""

    epoch: int = 0
    offset: int = 0


def epoch_order(num_samples: int, seed: int, *path: str | int) -> np.ndarray:
    """Return the order of all samples in one epoch: int64 (num_samples,), a pure function of seed and path."""
    return numpy_generator(seed, *path).permutation(num_samples)


def share_of(batch_size: int, rank: int, num_ranks: int) -> slice:
    """Return which samples of a batch are one rank's; raises ValueError when some rank would get none."""
    if batch_size < num_ranks:
        raise ValueError(
            f"A batch of {batch_size} cannot be shared by {num_ranks} ranks. Raise batch_size, which is that of all ranks "
            "together, or start fewer."
        )
    return slice(batch_size * rank // num_ranks, batch_size * (rank + 1) // num_ranks)


def index_batches(
    num_samples: int, batch_size: int, seed: int, *path: str | int, start: Cursor | None = None
) -> Iterator[tuple[np.ndarray, Cursor]]:
    """Yield (indices int64 (batch_size,), cursor behind them) without end; for data that is in memory.

    Each epoch has its own order; what does not fill a batch at its end is left for other epochs. Raises ValueError when
    there are fewer samples than a batch needs.
    """
    if batch_size > num_samples:
        raise ValueError(f"A batch of {batch_size} needs as many samples, got {num_samples}. Lower the batch size.")
    cursor = start or Cursor()
    while True:
        order = epoch_order(num_samples, seed, *path, cursor.epoch)
        for first in range(cursor.offset, num_samples - batch_size + 1, batch_size):
            yield order[first : first + batch_size], Cursor(cursor.epoch, first + batch_size)
        cursor = Cursor(cursor.epoch + 1)
