"""Lines of the log on the terminal."""

import copy
import logging


class WithoutTraceback(logging.Formatter):
    """Formats records as another formatter does, without their tracebacks."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; the record itself, which other handlers get too, is not changed."""
        short = copy.copy(record)
        short.exc_info = short.exc_text = short.stack_info = None
        return self._inner.format(short)
