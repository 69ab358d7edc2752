"""Progress of a step, read from the lines that it logs.

Any program is understood that logs "NAME: 1840/4500 steps, 3.2 steps/s, ..." and "checkpoint at step 1800".
"""

import re
from dataclasses import dataclass, replace

COUNT = re.compile(r": +(?P<done>\d+)(?:/(?P<total>\d+))? (?P<unit>[a-z]+), (?P<rate>[\d.e+-]+) [a-z]+/s")
CHECKPOINT = re.compile(r"checkpoint\D{1,20}?(?P<step>\d+)", re.IGNORECASE)
RESUMED = re.compile(r"resuming from step (?P<step>\d+) of (?P<total>\d+)")
PREFIX = re.compile(r"^[\d:,. -]{8,24} +[A-Z]+ +")  # time and level of a log line


@dataclass(frozen=True)
class Progress:
    """What is known about the progress of a step."""

    line: str = ""  # the last line of the log
    done: int | None = None
    total: int | None = None
    unit: str = ""
    rate: float | None = None  # units per second
    checkpoint: int | None = None

    def __str__(self) -> str:
        if self.done is None:
            return ""
        share = f"/{self.total}" if self.total else ""
        speed = f", {self.rate:.3g}/s" if self.rate else ""
        return f"{self.done}{share} {self.unit}{speed}"


def updated(progress: Progress, line: str) -> Progress:
    """Return the progress after one more line of the log."""
    text = PREFIX.sub("", line).strip()
    if not text:
        return progress
    new = replace(progress, line=text)
    if match := COUNT.search(text):
        total = int(match["total"]) if match["total"] else None
        new = replace(new, done=int(match["done"]), total=total, unit=match["unit"], rate=float(match["rate"]))
    elif match := RESUMED.search(text):
        step = int(match["step"])
        new = replace(new, done=step, total=int(match["total"]), unit="steps", rate=None, checkpoint=step)
    elif match := CHECKPOINT.search(text):
        new = replace(new, checkpoint=int(match["step"]))
    return new
