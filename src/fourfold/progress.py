"""Long work shows itself: a bar with rate and time left on a terminal, a plain line now and then in a log."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)
T = TypeVar("T")
SECONDS_BETWEEN_LINES = 15.0


def progress(
    items: Iterable[T],
    description: str,
    total: int | None = None,
    unit: str = "it",
    start: int = 0,
    note: Callable[[], str] | None = None,
) -> Iterator[T]:
    """Yield `items`, showing how far it is; `start` counts what an earlier, interrupted run had already done.

    `note` is asked for a few words, e.g. the loss, whenever a line is shown.
    """
    if total is None and hasattr(items, "__len__"):
        total = start + len(items)  # type: ignore[arg-type]
    if sys.stderr.isatty():
        bar = tqdm(items, description, total=total, unit=unit, initial=start, dynamic_ncols=True, smoothing=0.05)
        for item in bar:
            yield item
            if note:
                bar.set_postfix_str(note(), refresh=False)
        return
    began = last = time.monotonic()
    for count, item in enumerate(items, start + 1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            rate = (count - start) / (now - began)
            left = f", {(total - count) / rate:.0f} s left" if total else ""
            words = f", {note()}" if note else ""
            share = f"/{total}" if total else ""
            logger.info("%s: %d%s %s, %.3g %s/s%s%s", description, count, share, unit, rate, unit, left, words)
