"""How much a metric may differ on a machine that rounds differently: rules of conf/, each for a pattern of names."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fourfold_ops.errors import UserError
from fourfold_ops.reproduction.metrics import Tolerance

INTERVAL = "ci95"  # [low, high] beside a value


class Rule(BaseModel):
    """The tolerance of the metrics whose dotted name fits a pattern."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    metrics: str  # with * and ?
    absolute: float = Field(0.0, ge=0)
    relative: float = Field(0.0, ge=0)  # of the recorded value
    intervals: float = Field(0.0, ge=0)  # of the half width of the interval `ci95` beside the value, if there is one


def rules(configuration: Any) -> tuple[Rule, ...]:
    """Return the rules of `conf/*/reproduction.yml`; none without that file.

    Raises:
        UserError: The file is not valid.
    """
    entries = (configuration or {}).get("tolerances") or ()
    try:
        return tuple(Rule.model_validate(entry) for entry in entries)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise UserError(
            f"conf/*/reproduction.yml, tolerances: {'.'.join(map(str, problem['loc']))}: {problem['msg']}.",
            "Give each a pattern (metrics) and one of absolute, relative, intervals: numbers that are at least 0.",
        ) from None


def tolerance_of(entries: Sequence[Rule]) -> Tolerance:
    """Return the function that gives the tolerance of a metric: the largest that its first fitting rule allows, else 0."""

    def tolerance(name: str, recorded: float, values: dict[str, Any]) -> float:
        rule = next((rule for rule in entries if fnmatchcase(name, rule.metrics)), None)
        if rule is None:
            return 0.0
        half_width = rule.intervals * _half_width(name, values) if rule.intervals else 0.0
        return max(rule.absolute, rule.relative * abs(recorded), half_width)

    return tolerance


def _half_width(name: str, values: dict[str, Any]) -> float:
    """Return half the width of the interval of the metric to which a value belongs; 0 without one."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        low, high = (values.get(".".join([*parts[:length], INTERVAL, end])) for end in ("0", "1"))
        if isinstance(low, int | float) and isinstance(high, int | float):
            return abs(high - low) / 2
    return 0.0
