"""What a start can fail with: always one line that says what, and where to look."""

from pathlib import Path

TAIL_LINES = 15


class ClusterError(Exception):
    """The cluster cannot be built, started or reached; the message names the culprit and ends with the tail of its log."""


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log file, indented; a missing or empty one is named as such."""
    try:
        found = log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    except OSError:
        found = []
    return "\n".join(f"    {line[:400]}" for line in found) or f"    ({log} is empty)"
