"""How far a step is, read from the lines that it logs. Pure.

The lines are those of any tool that says "NAME: 1840/4500 steps, 3.2 steps/s, …" now and then, and "checkpoint at step 1800".
"""

import re
from dataclasses import dataclass, replace

COUNT = re.compile(r": +(?P<done>\d+)(?:/(?P<total>\d+))? (?P<unit>[a-z]+), (?P<rate>[\d.e+-]+) [a-z]+/s")
CHECKPOINT = re.compile(r"checkpoint\D{1,20}?(?P<step>\d+)", re.IGNORECASE)
RESUMED = re.compile(r"resuming from step (?P<step>\d+) of (?P<total>\d+)")
PREFIX = re.compile(r"^[\d:,. -]{8,24} +[A-Z]+ +")  # time and level of a log line


@dataclass(frozen=True)
class Progress:
    """The last that a step said of itself."""

    line: str = ""
    done: int | None = None
    total: int | None = None
    unit: str = ""
    rate: float | None = None  # units a second
    checkpoint: int | None = None

    def __str__(self) -> str:
        if self.done is None:
            return ""
        share = f"/{self.total}" if self.total else ""
        speed = f", {self.rate:.3g}/s" if self.rate else ""
        return f"{self.done}{share} {self.unit}{speed}"


def after(line: str, before: Progress) -> Progress:
    """Return what is known of a step after one more line of its log."""
    text = PREFIX.sub("", line).strip()
    if not text:
        return before
    found = replace(before, line=text)
    if match := COUNT.search(text):
        total = int(match["total"]) if match["total"] else None
        found = replace(found, done=int(match["done"]), total=total, unit=match["unit"], rate=float(match["rate"]))
    elif match := RESUMED.search(text):
        step = int(match["step"])
        found = replace(found, done=step, total=int(match["total"]), unit="steps", rate=None, checkpoint=step)
    elif match := CHECKPOINT.search(text):
        found = replace(found, checkpoint=int(match["step"]))
    return found
