"""SIGTERM and Ctrl-C as exceptions, which are raised again where Python or a library loses them."""

import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from fourfold_ops.errors import EXIT_TRY_AGAIN

LOOK_SECONDS = 2.0  # between two looks; much less, and an exception that is on its way through many frames seems lost


class Stopped(SystemExit):
    """Raised on SIGTERM: an exception, so that clean-up runs and the MLflow run is not left in status "RUNNING"."""

    def __init__(self) -> None:
        super().__init__(EXIT_TRY_AGAIN)


class Signals:
    """The signals to end that one command gets.

    The exception of a signal is lost in finalizers and callbacks of weak references, where Python ignores it, and in code in C
    that clears it. While it is on its way to somebody who cleans up, and during the clean-up, the main thread handles an
    exception. So a thread that starts with the signal looks from time to time; if the main thread handles none twice in a row,
    the thread sends the signal again.

    Attributes:
        received: the numbers, in order.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        self._again, self._ended = threading.Event(), threading.Event()

    def install(self) -> None:
        """Become the handler of both signals in this process; where Ctrl-C is ignored, it stays so."""
        signal.signal(signal.SIGTERM, self._stop)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._interrupt)
        sys.unraisablehook = functools.partial(_hide, sys.unraisablehook)

    def end(self) -> None:
        """Send nothing again: the command has ended."""
        self._ended.set()

    def _stop(self, number: int, frame: Any) -> None:
        if number not in self.received or self._again.is_set():  # a second SIGTERM must not interrupt the clean-up
            self._note(number)
            raise Stopped

    def _interrupt(self, number: int, frame: Any) -> None:
        self._note(number)
        raise KeyboardInterrupt

    def _note(self, number: int) -> None:
        self.received.append(number)
        self._again.clear()
        threading.Thread(target=self._watch, args=(number, len(self.received)), name="signal", daemon=True).start()

    def _watch(self, number: int, count: int) -> None:
        main, misses = threading.main_thread().ident, 0
        while misses < 2:
            if self._ended.wait(LOOK_SECONDS) or len(self.received) > count:
                return
            handled = sys._current_exceptions().get(main or 0)  # before Python 3.12 as of `sys.exc_info()`
            misses = misses + 1 if handled is None or handled == (None, None, None) else 0
        self._again.set()
        os.kill(os.getpid(), number)


def _hide(otherwise: Callable[[Any], Any], ignored: Any) -> None:
    """Print no exception of a signal that Python ignores: it is raised again."""
    if not isinstance(ignored.exc_value, Stopped | KeyboardInterrupt):
        otherwise(ignored)
