"""What the user sees while steps run: a live table on a terminal, a line for every change elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fourfold_ops.kubernetes.verdicts.progress import Progress

logger = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 30.0  # of progress, where there is no terminal
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
    """One step as it is shown."""

    title: str
    place: str  # "driver" or "pod"
    state: str = "waiting"
    pod: str = ""
    node: str = ""
    pods: str = ""  # e.g. "3/4" where there are several
    note: str = ""  # why it waits, or how it ended
    progress: Progress = field(default_factory=Progress)
    since: float | None = None
    until: float | None = None

    @property
    def age(self) -> str:
        """How long it has been at work."""
        if self.since is None:
            return ""
        seconds = int((self.until or time.monotonic()) - self.since)
        minutes, hours = seconds // 60, seconds // 3600
        return f"{hours}h{minutes % 60:02d}m" if hours else f"{minutes}m{seconds % 60:02d}s" if minutes else f"{seconds}s"


class LineDisplay:
    """Plain lines: one for every change of state, and of progress now and then."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = {row.title: row for row in rows}
        self._told: dict[str, tuple[str, str]] = {}
        self._progress_told = time.monotonic()

    def __enter__(self) -> "LineDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        self.refresh()

    def say(self, line: str, level: int = logging.INFO) -> None:
        """Show a line of its own."""
        logger.log(level, "%s", line)

    def refresh(self) -> None:
        """Show what has changed."""
        for row in self.rows.values():
            now = (row.state, row.note)
            # how a step failed is said in a line of its own
            if row.state not in ("waiting", "starting", "failed") and self._told.get(row.title) != now:
                self._told[row.title] = now
                self.say(_in_words(row))
        if time.monotonic() - self._progress_told >= SECONDS_BETWEEN_LINES:
            self._progress_told = time.monotonic()
            for row in self.rows.values():
                if row.state == "running" and str(row.progress):
                    self.say(f"{row.title}: {row.progress}")


def _in_words(row: Row) -> str:
    where = f" on {row.node}" if row.node and row.state in ("running", "done") else ""
    pod = f" ({row.pod})" if row.pod and row.state in ("running", "pending") else ""
    took = f" after {row.age}" if row.state in ("done", "failed") and row.age else ""
    note = f": {row.note}" if row.note else ""
    return f"{row.title}: {row.state}{where}{pod}{took}{note}"


class TableDisplay(LineDisplay):
    """A table that is drawn again in place; lines and logs of others appear above it."""

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
        for handler in logging.getLogger().handlers:  # lines that are logged appear above the table, not through it
            if isinstance(handler, logging.StreamHandler) and handler.stream is before:
                self._streams.append((handler, handler.setStream(sys.stderr)))
        return self

    def __exit__(self, *_: object) -> None:
        for handler, stream in self._streams:
            handler.setStream(stream)
        self._live.stop()

    def say(self, line: str, level: int = logging.INFO) -> None:
        """Show a line above the table; it goes to the log file too."""
        self._console.print(line, style="bold red" if level >= logging.ERROR else None, highlight=False, markup=False)
        logger.debug("%s", line)

    def refresh(self) -> None:
        """Nothing to do: the table draws itself."""

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, expand=True)
        for column in ("step", "state", "pod", "node", "age", "progress"):
            table.add_column(column, no_wrap=True, style="dim" if column == "pod" else "")
        table.add_column("says", no_wrap=True, ratio=1, overflow="ellipsis", style="dim")
        for row in self.rows.values():
            state = f"{row.state} {row.pods}".strip()
            pod = row.pod if row.place == "pod" else "driver"
            cells = (row.title, Text(state, style=STYLES.get(row.state, "dim")), pod, row.node, row.age, str(row.progress))
            table.add_row(*cells, Text(row.note or row.progress.line))
        return table


def open_display(rows: Iterable[Row]) -> LineDisplay:
    """Return the board that fits where the output goes."""
    return TableDisplay(rows) if sys.stderr.isatty() else LineDisplay(rows)
