"""Progress of long loops: a bar with rate and remaining time on a terminal, a line every 15 seconds in a log."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)
T = TypeVar("T")
SECONDS_BETWEEN_LINES = 15.0
_draws_bars = True


def use_lines() -> None:
    """Log lines instead of drawing bars, also on a terminal: for a process whose parent draws a bar."""
    global _draws_bars
    _draws_bars = False


def progress(
    items: Iterable[T],
    description: str,
    total: int | None = None,
    unit: str = "it",
    start: int = 0,
    note: Callable[[], str] | None = None,
) -> Iterator[T]:
    """Yield `items` and show the progress.

    Args:
        items: what to iterate over.
        description: what is being done.
        total: number of items including `start`; by default from `len(items)`, where that is defined.
        unit: name of one item.
        start: number of items that an earlier, interrupted run has done.
        note: returns a few words to show with each update, e.g. the loss.
    """
    if total is None and hasattr(items, "__len__"):
        total = start + len(items)  # type: ignore[arg-type]
    if _draws_bars and sys.stderr.isatty():
        bar = tqdm(items, description, total=total, unit=unit, initial=start, dynamic_ncols=True, smoothing=0.05)
        for item in bar:
            yield item
            if note:
                bar.set_postfix_str(note(), refresh=False)
        return
    # tqdm fills a log with control characters: write whole lines, and few of them
    began = last = time.monotonic()
    for count, item in enumerate(items, start + 1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            rate = (count - start) / (now - began)
            remaining = f", {(total - count) / rate:.0f} s left" if total else ""
            suffix = f", {note()}" if note else ""
            of_total = f"/{total}" if total else ""
            logger.info("%s: %d%s %s, %.3g %s/s%s%s", description, count, of_total, unit, rate, unit, remaining, suffix)
