"""Generating a grid of tokens in a few steps: MaskGIT (arXiv 2202.04200 §3.2) and ROAR (4M, arXiv 2312.06647 §3.1).

MaskGIT fixes the most confident tokens first; ROAR ("random order autoregressive") fixes random ones. The schedules set
how many tokens each step fixes, and at which temperature.
"""

# B batch, L tokens of the grid, R tokens that remain, n tokens fixed by a step, S steps, V vocabulary

import math
from collections.abc import Callable
from itertools import pairwise

from torch import Tensor

from fourfold.generation.conditions import MISSING
from fourfold.generation.config import ScheduleName, TargetConfig, TemperatureName
from fourfold.generation.sampling import sample, sample_with_confidence

ONEX_RANGE = 100  # x of the last token; x of the first is 1
# (tokens so far (B, L), positions asked for (B, R)) → logits (B, R, V)
Predict = Callable[[Tensor, Tensor], Tensor]


def generate_grid(predict: Predict, tokens_BL: Tensor, settings: TargetConfig, order_BL: Tensor, uniform_BSL: Tensor) -> Tensor:
    """Return `tokens_BL` with MISSING tokens filled step by step.

    Args:
        predict: returns the logits of some positions.
        tokens_BL: ids, MISSING where a token is to be generated; all samples must lack equally many.
        settings: order, steps, schedules and sampling.
        order_BL: for each sample a permutation of the positions, which ROAR follows.
        uniform_BSL: for each step and position a number in [0, 1), which decides the sample.

    Raises:
        ValueError: samples lack different numbers of tokens.
    """
    tokens_BL = tokens_BL.clone()
    schedule = step_sizes(tokens_BL, settings)
    for step, (size, temperature) in enumerate(zip(schedule, temperatures_of(schedule, settings), strict=True)):
        if size == 0:
            continue
        remaining_BR = _remaining(tokens_BL, order_BL)
        asked = remaining_BR[:, :size] if settings.order == "roar" else remaining_BR.sort(dim=1).values
        uniform = uniform_BSL[:, step].gather(1, asked)
        drawn = (predict(tokens_BL, asked), uniform, temperature, settings.top_k, settings.top_p)
        if asked.shape[1] == size:  # ROAR, or MaskGIT's last step: keep all
            ids = sample(*drawn)
        else:
            ids, confidence = sample_with_confidence(*drawn)
            best = confidence.argsort(dim=1, descending=True, stable=True)[:, :size]  # of equal ones the first
            asked, ids = asked.gather(1, best), ids.gather(1, best)
        tokens_BL.scatter_(1, asked, ids)
    return tokens_BL


def step_sizes(tokens_BL: Tensor, settings: TargetConfig) -> list[int]:
    """Return how many tokens each step fixes; raises ValueError when samples lack different numbers of tokens."""
    missing = (tokens_BL == MISSING).sum(1)
    if int(missing.min()) != int(missing.max()):
        raise ValueError(f"Samples lack {int(missing.min())} to {int(missing.max())} tokens; all must lack equally many.")
    length, already = tokens_BL.shape[1], tokens_BL.shape[1] - int(missing[0])
    return remaining_schedule(token_schedule(length, settings.steps, settings.schedule), already)


def temperatures_of(schedule: list[int], settings: TargetConfig) -> list[float]:
    """Return the temperature of each step."""
    return temperatures(
        settings.temperature, schedule, settings.temperature_schedule, settings.final_temperature, settings.temperature_power
    )


def _remaining(tokens_BL: Tensor, order_BL: Tensor) -> Tensor:
    """Return the positions (B, R) of MISSING tokens in the given order."""
    missing_BL = tokens_BL.gather(1, order_BL) == MISSING
    count = int(missing_BL[0].sum())
    # stable sort: missing positions first, in their given order
    return order_BL.gather(1, (~missing_BL).long().argsort(dim=1, stable=True)[:, :count])


def token_schedule(num_tokens: int, steps: int, name: ScheduleName) -> list[int]:
    """Return how many tokens each step fixes; the numbers sum to `num_tokens`.

    - `cosine`: the missing share is (1 + cos(π · step / steps)) / 2, so few at first and at the end; a step may fix
      none.
    - `linear`: equal numbers, larger ones first; no step is empty.
    """
    if name == "linear":
        equal = [num_tokens // steps + (step < num_tokens % steps) for step in range(steps)]
        return [size for size in equal if size]
    missing = [0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]  # as in the reference, for equal rounding
    sizes: list[int] = []
    for before, after in pairwise(missing):
        sizes.append(min(round(num_tokens * (before - after)), num_tokens - sum(sizes)))
    return [*sizes, num_tokens - sum(sizes)]


def remaining_schedule(schedule: list[int], already: int) -> list[int]:
    """Return the rest of a schedule when `already` tokens are given: drop whole steps and shorten the next one."""
    rest = list(schedule)
    while rest and already >= rest[0]:
        already -= rest.pop(0)
    if rest:
        rest[0] -= already
    return rest


def temperatures(
    temperature: float, schedule: list[int], name: TemperatureName, final: float = 0.0, power: float = 0.5
) -> list[float]:
    """Return the temperature of each step, as in the reference implementation.

    - `constant`: always `temperature`.
    - `linear`: `temperature` times the share of tokens that is missing before the step.
    - `onex`: falls early and steeply from `temperature` to `final`: final + (temperature − final) · r · f. Here r is
      the share of tokens that is missing after step k, and f is 1 / x^`power` rescaled to the range 1 to 0, where x is
      the k-th of as many values as there are tokens, evenly spaced from 1 to 100.
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
    minimum = ONEX_RANGE**-power
    return (x**-power - minimum) / (1 - minimum)
