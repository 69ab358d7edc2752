"""Units of work in worker processes: what comes out, and in which order, is what one process would give."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

Unit = TypeVar("Unit")
Result = TypeVar("Result")


class Reading(Protocol):
    """How to read: see `fourfold.pretraining.loader.Reader`."""

    @property
    def num_workers(self) -> int:
        """Processes; 0 reads in this one."""

    @property
    def prefetch(self) -> int:
        """Units that each worker is ahead."""

    @property
    def pin_memory(self) -> bool:
        """Whether results are to be in page-locked memory."""


def in_workers(units: Callable[[], Iterable[Unit]], read: Callable[[Unit], Result], how: Reading) -> Iterator[Result]:
    """Yield `read(unit)` of each of `units()`, in order.

    Worker w of n reads units w, w + n, ...: all know all of them and read their own, so the number of workers has nothing to do
    with the number of shards. An error in a worker is raised here. Workers end with the process that they work for.
    """
    if not how.num_workers:
        for unit in units():
            yield _pinned(read(unit)) if how.pin_memory else read(unit)
        return
    loader = DataLoader(
        _EveryNth(units, read),
        batch_size=None,
        num_workers=how.num_workers,
        prefetch_factor=how.prefetch,
        pin_memory=how.pin_memory,
        worker_init_fn=_leave_group,
        multiprocessing_context="fork",  # what it reads with is not pickled
        generator=torch.Generator(),  # its own: the loader draws a number that nobody uses
    )
    reading = iter(loader)
    try:
        yield from reading
    finally:
        reading._shutdown_workers()  # type: ignore[attr-defined]  # else they wait for the garbage collector


class _EveryNth(IterableDataset):
    def __init__(self, units: Callable[[], Iterable[Any]], read: Callable[[Any], Any]) -> None:
        self.units, self.read = units, read

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        assert worker is not None
        for index, unit in enumerate(self.units()):
            if index % worker.num_workers == worker.id:
                yield self.read(unit)


def _leave_group(worker: int) -> None:
    """A SIGTERM for the whole group is for the process that trains: it saves first, and may still need its workers."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _pinned(result: Any) -> Any:
    """Return a tuple with its tensors and batches in page-locked memory, as the loader of torch does it."""
    return tuple(part.pin_memory() if hasattr(part, "pin_memory") else part for part in result)
