"""Splits the shards of a stage over several processes; afterward one run over all shards completes the set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class WorkSplit:
    """Which share of the work a process does: share `index` of `count`. It never changes the result."""

    index: int = 0  # from 0
    count: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether this process does all of the work."""
        return self.count == 1

    def of(self, items: Sequence[T]) -> list[T]:
        """Return the items of this share; raises ValueError when `index` is not below `count`."""
        if not 0 <= self.index < self.count:
            raise ValueError(f"Work split {self.index} of {self.count} does not exist; allowed: 0 to {self.count - 1}.")
        return list(items[self.index :: self.count])  # every count-th, so that the shards of a large split are spread evenly


NO_SPLIT = WorkSplit()
