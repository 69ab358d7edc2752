"""Generating a grid of tokens in a few steps: ROAR and MaskGIT (4M-7 §3.1; MaskGIT: arXiv 2202.04200)."""

# B batch, L places of the grid, R places that remain, n places fixed by a step, V vocabulary

from collections.abc import Callable

from torch import Tensor

from fourfold.generation.conditions import UNKNOWN
from fourfold.generation.config import TargetConfig
from fourfold.generation.sampling import sample, sample_with_confidence
from fourfold.generation.schedules import remaining_schedule, temperatures, token_schedule

# (tokens so far (B, L), places asked for (B, R)) → logits (B, R, V)
Predict = Callable[[Tensor, Tensor], Tensor]


def generate_grid(predict: Predict, tokens_BL: Tensor, settings: TargetConfig, order_BL: Tensor, uniform_BSL: Tensor) -> Tensor:
    """Fill the UNKNOWN places of `tokens_BL` step by step and return it; all samples lack equally many.

    `order_BL`: a permutation of the places per sample (ROAR's order). `uniform_BSL`: numbers in [0, 1) for each step and place.
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
        if asked.shape[1] == size:  # ROAR, or MaskGIT's last step: all are taken
            ids = sample(*drawn)
        else:
            ids, confidence = sample_with_confidence(*drawn)
            best = confidence.argsort(dim=1, descending=True, stable=True)[:, :size]  # of equals the first
            asked, ids = asked.gather(1, best), ids.gather(1, best)
        tokens_BL.scatter_(1, asked, ids)
    return tokens_BL


def step_sizes(tokens_BL: Tensor, settings: TargetConfig) -> list[int]:
    """Return how many tokens each step fixes. Raises ValueError when samples lack different numbers."""
    missing = (tokens_BL == UNKNOWN).sum(1)
    if int(missing.min()) != int(missing.max()):
        raise ValueError(f"Samples lack {int(missing.min())} to {int(missing.max())} tokens; it must be equally many.")
    length, already = tokens_BL.shape[1], tokens_BL.shape[1] - int(missing[0])
    return remaining_schedule(token_schedule(length, settings.steps, settings.schedule), already)


def temperatures_of(schedule: list[int], settings: TargetConfig) -> list[float]:
    """Return the temperature of each step."""
    return temperatures(
        settings.temperature, schedule, settings.temperature_schedule, settings.final_temperature, settings.temperature_power
    )


def _remaining(tokens_BL: Tensor, order_BL: Tensor) -> Tensor:
    """Return the places that are UNKNOWN, in the order given: (B, R)."""
    unknown = tokens_BL.gather(1, order_BL) == UNKNOWN
    count = int(unknown[0].sum())
    return order_BL.gather(1, (~unknown).long().argsort(dim=1, stable=True)[:, :count])
