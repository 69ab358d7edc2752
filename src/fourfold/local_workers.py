"""Independent pieces of work at the same time, each in a process with one thread.

Small models leave the cores of a CPU waiting for each other: with two OpenMP threads, a step of the default model takes
nearly nine tenths of the time that it takes with one, and many times as long when another program wants a core. Pieces
that do not depend on each other (fine-tuning runs, shards) gain a factor of two instead, and other programs cost no more
than their share. A piece computes with one thread wherever it runs, so the number of processes does not change a byte.
"""

import ctypes
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, TypeVar

import torch

from fourfold.metric_log import MetricLog
from fourfold.progress import progress, use_lines

T = TypeVar("T")
R = TypeVar("R")
Emit = Callable[[Any], None]
SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux


class WorkerDiedError(RuntimeError):
    """A worker process ended without a result."""


def results_of(function: Callable[[T], R], items: Sequence[T], num_processes: int | None = None) -> Generator[R, None, None]:
    """Yield `function(item)` for each item, in the order of the items.

    Close the generator (`contextlib.closing`) where the results are used in a way that can fail: the processes work on until
    then.

    The processes are forked when the first result is asked for, so functions and items may be anything that this process
    holds; results are pickled. What a function changes in memory is lost; what it writes to disk stays.

    Args:
        function: The work. It must not use the GPU or open connections of this process.
        items: What it is called with.
        num_processes: Default: as many as torch has threads here; one where forking is not possible (other systems than
            Linux, or CUDA in use).

    Raises:
        WorkerDiedError: A process was killed, for example because memory ran out. No process is left running.
    """
    number = num_workers(len(items), num_processes)
    if number < 2:
        for item in items:
            with one_thread():
                result = function(item)
            yield result
        return
    yield from _ordered(_forked(lambda item, emit: function(item), items, number), len(items))


def num_workers(count: int, num_processes: int | None = None) -> int:
    """Return how many processes `results_of` works with for this number of items; 1: this one."""
    return max(1, min(count, num_processes or torch.get_num_threads())) if can_fork() else 1


def run_all(function: Callable[[T], Any], items: Sequence[T], description: str, unit: str) -> None:
    """Call `function(item)` for each item as `results_of` does, for what it writes to disk, and show the progress."""
    for _ in progress(results_of(function, items), description, len(items), unit):
        pass


def run_logged(function: Callable[[T, MetricLog], Any], items: Sequence[T], log: MetricLog) -> Iterator[T]:
    """Call `function(item, log)` as `results_of` does, for what it writes to disk; yield each item when its work is done.

    What a process logs reaches `log` at once, in this process.
    """
    number = min(len(items), torch.get_num_threads())
    if number < 2 or not can_fork():
        for item in items:
            with one_thread():
                function(item, log)
            yield item
        return
    for index, _ in _forked(
        lambda item, emit: function(item, _EmittedLog(emit)), items, number, lambda call: _replay(call, log)
    ):
        yield items[index]


def can_fork() -> bool:
    """Return whether workers can be made: on Linux, while this process does not use a GPU."""
    return sys.platform == "linux" and not torch.cuda.is_initialized()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread inside the block, unless it computes on a GPU."""
    before = torch.get_num_threads()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _forked(
    function: Callable[[T, Emit], R], items: Sequence[T], number: int, listener: Emit | None = None
) -> Iterator[tuple[int, R]]:
    """Yield (index, result) in the order in which the work is finished; what it emits goes to `listener`."""
    workers = [Worker(lambda index, emit: (index, function(items[index], emit))) for _ in range(number)]
    try:
        waiting = iter(range(len(items)))
        busy = {worker.connection: worker for worker in workers}
        for worker in workers:
            worker.send(next(waiting))
        while busy:
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                message = worker.message()
                if isinstance(message, Emitted):
                    if listener:
                        listener(message.value)
                    continue
                found = worker.answer_in(message)
                index = next(waiting, None)
                if index is None:
                    del busy[worker.connection]
                else:
                    worker.send(index)
                yield found  # what is done with it does not keep the worker waiting
    finally:
        for worker in workers:
            worker.stop()


def _ordered(found: Iterator[tuple[int, R]], count: int) -> Iterator[R]:
    """Yield results in the order of their indices, each as soon as all before it are there."""
    early: dict[int, R] = {}
    for index in range(count):
        while index not in early:
            key, result = next(found)
            early[key] = result
        yield early.pop(index)
    for _ in found:  # stops the processes
        pass


@dataclass(frozen=True)
class Answer:
    """The result of a request, or the error that it raised and where."""

    result: Any = None
    error: BaseException | None = None
    trace: str = ""


@dataclass(frozen=True)
class Emitted:
    """What the work of a worker sends before its result."""

    value: Any


class Worker:
    """A forked process with one thread, which answers requests.

    Args:
        answer: called in the process with each request and a function that sends a value to this process at once; its result is
            the answer. It sees the memory of this process as it was when the worker was made.
    """

    def __init__(self, answer: Callable[[Any, Emit], Any]) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        self.process: BaseProcess = context.Process(target=_serve, args=(answer, theirs, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()
        # At the exit of Python, before multiprocessing waits for its processes: they ignore its SIGTERM
        self._at_exit = Finalize(None, self.process.kill, exitpriority=0)

    def send(self, request: Any) -> None:
        """Send a request."""
        try:
            self.connection.send(request)
        except BrokenPipeError:
            raise self._died() from None

    def message(self) -> Emitted | Answer:
        """Wait for what comes next: a value that was emitted, or an answer.

        Raises:
            WorkerDiedError: The process was killed.
        """
        try:
            message: Emitted | Answer = self.connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._died() from None
        return message

    @staticmethod
    def answer_in(message: Answer) -> Any:
        """Return the result in an answer, or raise the error in it."""
        if message.error is not None:
            message.error.add_note(message.trace)
            raise message.error
        return message.result

    def receive(self) -> Any:
        """Wait for the answer to the oldest request, or raise what it raised. For work that emits nothing.

        Raises:
            WorkerDiedError: The process was killed.
        """
        message = self.message()
        assert isinstance(message, Answer)
        return self.answer_in(message)

    def stop(self) -> None:
        """End the process."""
        self._at_exit.cancel()
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _died(self) -> WorkerDiedError:
        self.process.join()
        return WorkerDiedError(
            f"A worker process ended with status {self.process.exitcode} (-9: killed, often because memory ran out). "
            "Free some memory or lower num_threads, then run the same command again: finished work is kept."
        )


def _serve(answer: Callable[[Any, Emit], Any], connection: Connection, parent: int) -> None:
    """Answer requests, in a forked process, until that process is killed."""
    ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        return
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal sends them to all processes; the parent decides
        signal.signal(number, signal.SIG_IGN)
    use_lines()
    torch.set_num_threads(1)
    gc.freeze()  # looking through what the parent holds would copy its pages
    while True:
        request = connection.recv()
        try:
            reply = Answer(answer(request, lambda value: connection.send(Emitted(value))))
        except (Exception, SystemExit) as error:
            reply = Answer(None, _sendable(error), traceback.format_exc())
        connection.send(reply)


def _sendable(error: BaseException) -> BaseException:
    """Return the error itself, or what it says if it cannot be pickled."""
    try:
        return pickle.loads(pickle.dumps(error))  # noqa: S301 (our own bytes)
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


class _EmittedLog:
    """The log of a worker: every call becomes one in the process that has the real log."""

    def __init__(self, emit: Emit) -> None:
        self.emit = emit

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.emit(("log_metrics", metrics, step))

    def log_figure(self, figure: Any, name: str) -> None:
        self.emit(("log_figure", figure, name))

    def log_file(self, path: Path, name: str) -> None:
        self.emit(("log_file", path, name))


def _replay(call: tuple[str, Any, Any], log: MetricLog) -> None:
    method, *arguments = call
    getattr(log, method)(*arguments)
