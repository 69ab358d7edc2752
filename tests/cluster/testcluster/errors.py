"""The error of the test cluster, and excerpts of logs for its message."""

from pathlib import Path

TAIL_LINES = 15


class ClusterError(Exception):
    """The cluster cannot be built, started or reached.

    The message names the program and ends with the tail of its log.
    """


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log file, indented, or a note that it is empty."""
    try:
        found = log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    except OSError:
        found = []
    return "\n".join(f"    {line[:400]}" for line in found) or f"    ({log} is empty)"
