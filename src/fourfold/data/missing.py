"""Missing labels: what stands in a shard where a labeler had no label for a sample, so that all modalities keep equal keys.

A missing label is a member `<key>.missing` that holds the reason. No label starts with its first byte: PNG, npy, JSON and
cleaned text begin with others.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

EXTENSION = "missing"
MARK = b"\0missing\n"
MISSING_TOKEN = -1  # every token of a modality that a sample lacks
MAX_CHARACTERS = 160  # of a reason
ADDRESS = re.compile(r"0x[0-9a-f]{4,}")  # of an object in memory: another one in each run


@dataclass(frozen=True)
class Missing:
    """Stands for the label of one modality that a sample lacks."""

    reason: str

    @classmethod
    def because_of(cls, error: Exception, key: str) -> "Missing":
        """Return the missing label of a sample whose labeling raised an error: its first line, without what differs by run."""
        text = " ".join((str(error).strip() or "no message").splitlines()[0].split())
        text = re.sub(rf"(?<![\w-]){re.escape(key)}(?![\w-])", "…", text)
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        return cls(_cut(kind + ADDRESS.sub("0x…", text)))

    def encode(self) -> bytes:
        """Return the bytes of its member."""
        return MARK + self.reason.encode("utf-8", "replace")


def is_missing(content: bytes) -> bool:
    """Return whether the bytes of a member stand for a missing label."""
    return content.startswith(MARK)


def decode_missing(content: bytes) -> Missing:
    """Return the missing label of such bytes."""
    return Missing(content[len(MARK) :].decode("utf-8", "replace"))


def present_rows(values: Sequence[Any]) -> list[int]:
    """Return the rows of the values that are not missing."""
    if isinstance(values, np.ndarray):
        return list(range(len(values)))
    return [row for row, value in enumerate(values) if not isinstance(value, Missing)]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 1]}…"
