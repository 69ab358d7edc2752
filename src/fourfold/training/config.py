"""Settings of the training loop, the learning rate schedule, and the conversion of a token budget to steps."""

import math
from typing import Literal

from pydantic import Field

from fourfold.configuration import Config


class LoopConfig(Config):
    """What the loop does beside updating: clipping, averaging, logging, validation and checkpoints. Intervals are in steps,
    except where they are named otherwise."""

    clip_norm: float | None = Field(default=1.0, gt=0)  # bound of the norm of the whole gradient; None: no clipping
    # Decay of the moving average of the weights, which is validated and kept; None: off, as in 4M.
    average_decay: float | None = Field(default=None, gt=0, lt=1)
    log_every: int = Field(default=50, ge=1)  # steps
    validate_every: int | None = Field(default=None, ge=1)  # steps; None: never; otherwise the last step is always validated
    checkpoint_every: int | None = Field(default=None, ge=1)  # steps; None: by time, and after the last step
    # Also save when this many seconds have passed since the last save; more if saving takes over 1 % of them. None: never.
    checkpoint_seconds: float | None = Field(default=60.0, gt=0)
    keep_checkpoints: int = Field(default=1, ge=1)  # the newest ones
    max_skipped_share: float = Field(default=0.02, ge=0, le=1)  # share of steps with a non-finite gradient; more is an error
    max_skipped_in_a_row: int = Field(default=10, ge=1)  # consecutive steps with a non-finite gradient; as many are an error


class ScheduleConfig(Config):
    """Linear warm-up, then decay of the given kind to `final_lr_multiplier` of the peak learning rate."""

    kind: Literal["cosine", "linear", "constant"] = "cosine"  # shape of the decay
    warmup_steps: int = Field(default=0, ge=0)  # linear, to the peak
    final_lr_multiplier: float = Field(default=0.0, ge=0, le=1)  # of the peak, where the decay ends


def lr_multiplier(schedule: ScheduleConfig, step: int, num_steps: int) -> float:
    """Return the multiplier of the peak learning rate at `step`, counted from 0 (cosine: Loshchilov & Hutter, 2017).

    Neither the first step of a warm-up nor the last step of a decay is 0, so that every step learns.
    """
    if step < schedule.warmup_steps:
        return (step + 1) / (schedule.warmup_steps + 1)
    if schedule.kind == "constant":
        return 1.0
    progress = min(1.0, (step - schedule.warmup_steps) / max(1, num_steps - schedule.warmup_steps))
    decay = 1 - progress if schedule.kind == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return schedule.final_lr_multiplier + (1 - schedule.final_lr_multiplier) * decay


def steps_of_tokens(tokens: int, batch_size: int, tokens_per_sample: int) -> int:
    """Return the number of steps that consume a budget of tokens.

    Tokens are counted as in 4M (arXiv 2312.06647): input budget plus target budget of every sample, empty slots
    included.
    """
    return math.ceil(tokens / (batch_size * tokens_per_sample))
