"""How many tokens each step of a grid's generation fixes, and at which temperature (4M-7 §3.1; 4m-facts §6)."""

import math
from itertools import pairwise
from typing import Literal

ScheduleName = Literal["cosine", "linear"]
TemperatureName = Literal["constant", "linear", "onex"]
ONEX_RANGE = 100  # x of the last token; the first has 1


def token_schedule(num_tokens: int, steps: int, name: ScheduleName) -> list[int]:
    """Return how many tokens each step fixes; they sum to `num_tokens`.

    cosine (MaskGIT): few at first and at the end; steps that fix nothing may occur. linear: equal parts, the larger first,
    no empty ones.
    """
    if name == "linear":
        equal = [num_tokens // steps + (step < num_tokens % steps) for step in range(steps)]
        return [size for size in equal if size]
    missing = [0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]  # as the reference: halves round alike
    sizes: list[int] = []
    for before, after in pairwise(missing):
        sizes.append(min(round(num_tokens * (before - after)), num_tokens - sum(sizes)))
    return [*sizes, num_tokens - sum(sizes)]


def remaining_schedule(schedule: list[int], already: int) -> list[int]:
    """Return what is left of a schedule when `already` tokens are given: whole steps are dropped, the next one is cut."""
    rest = list(schedule)
    while rest and already >= rest[0]:
        already -= rest.pop(0)
    if rest:
        rest[0] -= already
    return rest


def temperatures(
    temperature: float, schedule: list[int], name: TemperatureName, final: float = 0.0, power: float = 0.5
) -> list[float]:
    """Return each step's temperature.

    constant. linear: in the share of tokens that is missing before the step. onex: from `temperature` down to `final`, early
    and steeply: final + (temperature − final) · r · f, where r is the share that is missing after step k and f is 1 / x^`power`
    brought to 1 … 0, x the k-th of as many values as there are tokens, evenly spaced over 1 … 100 (all as in the reference).
    """
    total = sum(schedule)
    if name == "constant":
        return [temperature] * len(schedule)
    if name == "linear":
        return [temperature * (1 - sum(schedule[:step]) / total) for step in range(len(schedule))]
    missing = [1 - sum(schedule[: step + 1]) / total for step in range(len(schedule))]
    return [final + (temperature - final) * share * _one_over_x(step, total, power) for step, share in enumerate(missing)]


def _one_over_x(step: int, total: int, power: float) -> float:
    x = 1 + (ONEX_RANGE - 1) * min(step / max(total - 1, 1), 1)
    least = ONEX_RANGE**-power
    return (x**-power - least) / (1 - least)
