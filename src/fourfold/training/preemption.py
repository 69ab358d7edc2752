"""Graceful termination: on SIGTERM (a preempted machine, a drained node) a run saves a checkpoint and exits with code 75."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: not a failure; the same command resumes


class Preempted(SystemExit):
    """Raised after a SIGTERM once everything is saved; uncaught, it ends the process with `EXIT_PREEMPTED`."""

    def __init__(self, message: str) -> None:
        super().__init__(EXIT_PREEMPTED)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:  # a worker process sends it to its parent
        return Preempted, (self.message,)


class Termination:
    """Records whether a SIGTERM was received."""

    def __init__(self) -> None:
        self.requested = False

    def request(self, number: int, frame: Any) -> None:
        """Handle the signal: the loop finishes the step in progress first."""
        self.requested = True


@contextmanager
def noticing_termination(can_save: bool) -> Iterator[Termination]:
    """Record SIGTERM inside the block instead of ending the process; restore the previous handler afterwards.

    Signals keep their effect if nothing can be saved, and in threads, where Python allows no handlers.
    """
    termination = Termination()
    if not can_save or threading.current_thread() is not threading.main_thread():
        yield termination
        return
    before = signal.signal(signal.SIGTERM, termination.request)
    try:
        yield termination
    finally:
        signal.signal(signal.SIGTERM, before)
