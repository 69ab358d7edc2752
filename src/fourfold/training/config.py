"""How the learning rate moves, as a pure function of the step; and how a budget of tokens becomes a number of steps."""

import math
from typing import Literal

from pydantic import Field

from fourfold.configuration import Config


class LoopConfig(Config):
    """How long to train and what to keep of it. Everything is counted in steps."""

    num_steps: int = Field(ge=0)
    clip_norm: float | None = Field(default=1.0, gt=0)  # of the whole gradient; None: no clipping
    average_decay: float | None = Field(default=None, gt=0, lt=1)  # keep a moving average of the weights and validate with it
    log_every: int = Field(default=50, ge=1)
    validate_every: int | None = Field(default=None, ge=1)  # None: never; the last step is always validated otherwise
    checkpoint_every: int | None = Field(default=None, ge=1)  # None: only after the last step (when there is a folder)
    keep_checkpoints: int = Field(default=1, ge=1)
    max_skipped_share: float = Field(default=0.02, ge=0, le=1)  # of steps whose gradient is not finite; more is an error
    max_skipped_in_a_row: int = Field(default=10, ge=1)  # as many are an error
    profile_steps: int = Field(default=0, ge=0)  # of which a trace is kept


class ScheduleConfig(Config):
    """Linear warm-up, then `kind` down to `final_lr_multiplier` of the peak."""

    kind: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = Field(default=0, ge=0)
    final_lr_multiplier: float = Field(default=0.0, ge=0, le=1)


def lr_multiplier(config: ScheduleConfig, step: int, num_steps: int) -> float:
    """Return what the peak learning rate is multiplied by at `step`, counted from 0 (cosine: Loshchilov & Hutter, 2017).

    The first step of a warm-up is not 0, and neither is the last step of a decay: each step learns something.
    """
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    if config.kind == "constant":
        return 1.0
    progress = min(1.0, (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps))
    decay = 1 - progress if config.kind == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return config.final_lr_multiplier + (1 - config.final_lr_multiplier) * decay


def steps_of_tokens(tokens: int, batch_size: int, tokens_per_sample: int) -> int:
    """Return how many steps use up a budget of tokens.

    Tokens are counted as 4M counts them: the input budget plus the target budget of every sample, empty slots included.
    """
    return math.ceil(tokens / (batch_size * tokens_per_sample))
