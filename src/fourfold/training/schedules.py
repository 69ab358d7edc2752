"""How the learning rate moves, as a pure function of the step; and how a budget of tokens becomes a number of steps."""

import math
from typing import Literal

from pydantic import Field

from fourfold.configuration import Config


class ScheduleConfig(Config):
    """Linear warm-up, then `kind` down to `final_factor` of the peak."""

    kind: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = Field(default=0, ge=0)
    final_factor: float = Field(default=0.0, ge=0, le=1)


def factor(config: ScheduleConfig, step: int, num_steps: int) -> float:
    """Return what the peak learning rate is multiplied by at `step`, counted from 0 (cosine: Loshchilov & Hutter, 2017).

    The first step of a warm-up is not 0, and neither is the last step of a decay: each step learns something.
    """
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    if config.kind == "constant":
        return 1.0
    progress = min(1.0, (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps))
    decay = 1 - progress if config.kind == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return config.final_factor + (1 - config.final_factor) * decay


def steps_of_tokens(tokens: int, batch_size: int, tokens_per_sample: int) -> int:
    """Return how many steps use up a budget of tokens.

    Tokens are counted as 4M counts them: the input budget plus the target budget of every sample, empty slots included.
    """
    return math.ceil(tokens / (batch_size * tokens_per_sample))
