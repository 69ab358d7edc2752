"""Reading in worker processes; the results and their order are those of a single process."""

# An item is one unit of reading, e.g. the samples of a few shards; R is what reading it gives.

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

Item = TypeVar("Item")
R = TypeVar("R")


class WorkerSettings(Protocol):
    """Settings of the worker processes, e.g. `fourfold.pretraining.loader.Reader`."""

    @property
    def num_workers(self) -> int:
        """Number of processes; 0 reads in the calling process."""

    @property
    def prefetch(self) -> int:
        """Number of items that each worker reads ahead."""

    @property
    def pin_memory(self) -> bool:
        """Whether to copy results to page-locked memory, for faster transfers to a GPU."""


def in_workers(items: Callable[[], Iterable[Item]], read: Callable[[Item], R], settings: WorkerSettings) -> Iterator[R]:
    """Yield `read(item)` for each item of `items()`, in order.

    Worker w of n iterates over all items and reads items w, w + n, ..., so the number of workers is independent of the number
    of shards. An error in a worker is raised in the calling process. The workers end with the iterator.
    """
    if not settings.num_workers:
        for item in items():
            yield _pinned(read(item)) if settings.pin_memory else read(item)
        return
    loader = DataLoader(
        _EveryNth(items, read),
        batch_size=None,
        num_workers=settings.num_workers,
        prefetch_factor=settings.prefetch,
        pin_memory=settings.pin_memory,
        worker_init_fn=_leave_process_group,
        multiprocessing_context="fork",  # `read` need not be picklable, and loaded plug-ins are inherited
        generator=torch.Generator(),  # else the loader draws a number from the global generator
    )
    results = iter(loader)
    try:
        yield from results
    finally:
        results._shutdown_workers()  # type: ignore[attr-defined]  # else they run until the garbage collector finds them


class _EveryNth(IterableDataset):
    def __init__(self, items: Callable[[], Iterable[Any]], read: Callable[[Any], Any]) -> None:
        self.items, self.read = items, read

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        assert worker is not None, "runs in worker processes only"
        for index, item in enumerate(self.items()):
            if index % worker.num_workers == worker.id:
                yield self.read(item)


def _leave_process_group(worker: int) -> None:
    """Protect a worker from a SIGTERM to the process group: the training process saves first, and may need its workers."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _pinned(result: Any) -> Any:
    """Return a tuple with its tensors and batches in page-locked memory, as the `DataLoader` does."""
    return tuple(part.pin_memory() if hasattr(part, "pin_memory") else part for part in result)
