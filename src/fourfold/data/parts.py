"""Work that several processes share: each does its own part of the shards, and one run over the whole puts them together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """Which part of the work this process does, of how many. It says where work is done and never changes what comes out."""

    index: int = 0
    count: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether this process does all of it."""
        return self.count == 1

    def of(self, items: Sequence[T]) -> list[T]:
        """Return this part's items: every `count`-th, so that large splits are spread over all parts."""
        if not 0 <= self.index < self.count:
            raise ValueError(f"Part {self.index} of {self.count} does not exist. Parts count from 0.")
        return list(items[self.index :: self.count])


WHOLE = Part()
