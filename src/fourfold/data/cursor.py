"""Position in an endless, seeded sequence of epochs: the only state of a data reader that an exact resume needs."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fourfold.seeds import numpy_generator


@dataclass(frozen=True, order=True)
class Cursor:
    """Position after `offset` samples of epoch `epoch`. A reader yields it with each batch; it points to the next sample."""

    epoch: int = 0
    offset: int = 0


def epoch_order(num_samples: int, seed: int, *path: str | int) -> np.ndarray:
    """Return the order of all samples in one epoch: int64 (num_samples,), a pure function of seed and path."""
    return numpy_generator(seed, *path).permutation(num_samples)


def share_of(batch_size: int, rank: int, num_ranks: int) -> slice:
    """Return the slice of a batch that one rank processes; raises ValueError when some rank would get no sample."""
    if batch_size < num_ranks:
        raise ValueError(
            f"A batch of {batch_size} cannot be shared by {num_ranks} ranks. Raise batch_size, which counts the samples of all "
            "ranks together, or start fewer processes."
        )
    return slice(batch_size * rank // num_ranks, batch_size * (rank + 1) // num_ranks)


def index_batches(
    num_samples: int, batch_size: int, seed: int, *path: str | int, start: Cursor | None = None
) -> Iterator[tuple[np.ndarray, Cursor]]:
    """Yield batches of sample indices without end, for data in memory.

    Each epoch has its own order. Samples at its end that do not fill a batch are skipped until another epoch.

    Yields:
        Indices, int64 (batch_size,), and the cursor after them.

    Raises:
        ValueError: there are fewer samples than a batch needs.
    """
    if batch_size > num_samples:
        raise ValueError(f"A batch of {batch_size} needs as many samples; there are {num_samples}. Lower the batch size.")
    cursor = start or Cursor()
    while True:
        order = epoch_order(num_samples, seed, *path, cursor.epoch)
        for first in range(cursor.offset, num_samples - batch_size + 1, batch_size):
            yield order[first : first + batch_size], Cursor(cursor.epoch, first + batch_size)
        cursor = Cursor(cursor.epoch + 1)
