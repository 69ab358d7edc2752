"""Filters: named rules about the metadata of a sample, such as scores of a crawl, applied before its image is decoded."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from fourfold.configuration import Config


class FilterConfig(Config):
    """One rule. A sample that breaks it is removed and counted under the name of the rule."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")  # in the counts
    field: str = Field(min_length=1)  # of the metadata: a column of a table, a field of the `.json` in a tar
    min: float | None = None  # smallest number that is kept
    max: float | None = None  # largest number that is kept
    one_of: tuple[str, ...] = ()  # texts that are kept, e.g. languages; compared without case
    missing: Literal["keep", "drop"] = "keep"  # samples without a value, or with one of another kind

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.min is None and self.max is None and not self.one_of:
            raise ValueError(f"Filter {self.name!r} has no limit. Set min, max or one_of.")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"Filter {self.name!r} keeps nothing: min {self.min} is above max {self.max}. Set min below max.")
        return self

    def breaks(self, metadata: Mapping[str, Any]) -> bool:
        """Return whether a sample with these metadata is removed; of several rows about an image, one suffices."""
        value = metadata.get(self.field)
        values = value if isinstance(value, list) and value else [value]
        return any(map(self._breaks, values))

    def _breaks(self, value: Any) -> bool:
        if self.one_of:
            if not isinstance(value, str):
                return self.missing == "drop"
            return value.casefold() not in {text.casefold() for text in self.one_of}
        number = _number(value)
        if number is None:
            return self.missing == "drop"
        return (self.min is not None and number < self.min) or (self.max is not None and number > self.max)


def broken(filters: Sequence[FilterConfig], metadata: Mapping[str, Any]) -> str | None:
    """Return the reason under which a sample is removed, from the first rule that it breaks; None if it breaks none."""
    rule = next((one for one in filters if one.breaks(metadata)), None)
    return None if rule is None else f"filter {rule.name} ({rule.field})"


def _number(value: Any) -> float | None:
    """Return a number, also one that is written as text, as columns of CSV are; None for other values and NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return None if number != number else number
