"""A run that is told to go (SIGTERM: a pre-empted machine, a drained node) saves and says so by its exit code."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, and the same command goes on where this one stopped


class Preempted(SystemExit):
    """Raised once everything is on disk; left alone, the process ends with `EXIT_PREEMPTED`."""

    def __init__(self, message: str) -> None:
        super().__init__(EXIT_PREEMPTED)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Termination:
    """Whether a SIGTERM has come."""

    def __init__(self) -> None:
        self.requested = False

    def request(self, number: int, frame: Any) -> None:
        """Note it: the step in progress is finished first."""
        self.requested = True


@contextmanager
def noticing_termination(can_save: bool) -> Iterator[Termination]:
    """Within it a SIGTERM is only noted; afterwards it does what it did before.

    Without anything to save, or in a thread (where Python allows no handlers), signals stay as they are.
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
