"""Displays the steps of a run: a live table on a terminal, one line per change elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fourfold_ops.kubernetes.verdicts.progress import Progress

logger = logging.getLogger(__name__)
PROGRESS_SECONDS = 30.0  # between two lines of progress, without a terminal
STYLES = {
    "running": "cyan",
    "done": "green",
    "skipped": "green",
    "failed": "bold red",
    "pending": "yellow",
    "cancelled": "yellow",
}


@dataclass
class Row:
    """The row of a step."""

    title: str
    runs_in: str  # "driver" or "pod"
    state: str = "waiting"
    pod: str = ""
    node: str = ""
    pods: str = ""  # e.g. "3/4" if there are several
    note: str = ""  # why it waits, or how it ended
    progress: Progress = field(default_factory=Progress)
    since: float | None = None  # time.monotonic()
    until: float | None = None

    @property
    def age(self) -> str:
        """Time since it has started, or its duration if it has ended."""
        if self.since is None:
            return ""
        seconds = int((self.until or time.monotonic()) - self.since)
        minutes, hours = seconds // 60, seconds // 3600
        return f"{hours}h{minutes % 60:02d}m" if hours else f"{minutes}m{seconds % 60:02d}s" if minutes else f"{seconds}s"


class LineDisplay:
    """Logs a line for every change of state, and the progress every `PROGRESS_SECONDS`."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = {row.title: row for row in rows}
        self._shown: dict[str, tuple[str, str]] = {}
        self._progress_at = time.monotonic()

    def __enter__(self) -> "LineDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh()

    def show(self, line: str, level: int = logging.INFO) -> None:
        """Show a line."""
        logger.log(level, "%s", line)

    def refresh(self) -> None:
        """Show changed rows."""
        for row in self.rows.values():
            now = (row.state, row.note)
            # a failure is shown by `show`, with its verdict
            if row.state not in ("waiting", "starting", "failed") and self._shown.get(row.title) != now:
                self._shown[row.title] = now
                self.show(_sentence(row))
        if time.monotonic() - self._progress_at >= PROGRESS_SECONDS:
            self._progress_at = time.monotonic()
            for row in self.rows.values():
                if row.state == "running" and str(row.progress):
                    self.show(f"{row.title}: {row.progress}")


def _sentence(row: Row) -> str:
    where = f" on {row.node}" if row.node and row.state in ("running", "done") else ""
    pod = f" ({row.pod})" if row.pod and row.state in ("running", "pending") else ""
    took = f" after {row.age}" if row.state in ("done", "failed") and row.age else ""
    note = f": {row.note}" if row.note else ""
    return f"{row.title}: {row.state}{where}{pod}{took}{note}"


class TableDisplay(LineDisplay):
    """Draws a table that is updated in place; other lines and logs appear above it."""

    def __init__(self, rows: Iterable[Row]) -> None:
        super().__init__(rows)
        from rich.console import Console
        from rich.live import Live

        self._streams: list[tuple[logging.StreamHandler[Any], Any]] = []
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, get_renderable=self._table, refresh_per_second=4, transient=False)

    def __enter__(self) -> "TableDisplay":
        before = sys.stderr
        self._live.start()
        for handler in logging.getLogger().handlers:  # print log lines above the table
            if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                self._streams.append((handler, handler.setStream(sys.stderr)))
        return self

    def __exit__(self, *_: object) -> None:
        for handler, stream in self._streams:
            handler.setStream(stream)
        self._live.stop()

    def show(self, line: str, level: int = logging.INFO) -> None:
        """Show a line above the table, and write it to the log file."""
        self._console.print(line, style="bold red" if level >= logging.ERROR else None, highlight=False, markup=False)
        logger.debug("%s", line)

    def refresh(self) -> None:
        """Do nothing: rich redraws the table."""

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, expand=True)
        for column in ("step", "state", "pod", "node", "age", "progress"):
            table.add_column(column, no_wrap=True, style="dim" if column == "pod" else "")
        table.add_column("note", no_wrap=True, ratio=1, overflow="ellipsis", style="dim")
        for row in self.rows.values():
            state = f"{row.state} {row.pods}".strip()
            pod = row.pod if row.runs_in == "pod" else "driver"
            cells = (row.title, Text(state, style=STYLES.get(row.state, "dim")), pod, row.node, row.age, str(row.progress))
            table.add_row(*cells, Text(row.note or row.progress.line))
        return table


def open_display(rows: Iterable[Row]) -> LineDisplay:
    """Return the display for a terminal, or for other outputs."""
    return TableDisplay(rows) if sys.stderr.isatty() else LineDisplay(rows)
