"""What a training run is told (`LoopConfig`), and what changes while it runs (`TrainingState`)."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import Field

from fourfold.configuration import Config
from fourfold.data.cursor import Cursor


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


@dataclass
class TrainingState:
    """What changes while training, beside the tensors; stored in every checkpoint. Also what `train` returns."""

    step: int = 0
    cursor: Cursor = field(default_factory=Cursor)
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)  # what was logged: {"step": ..., name: value}
    window: list[dict[str, float]] = field(default_factory=list)  # figures of the steps since the last log line

    def as_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return asdict(self) | {"best_loss": None if math.isinf(self.best_loss) else self.best_loss}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TrainingState":
        """Return the state that `as_json` wrote."""
        best = math.inf if values["best_loss"] is None else values["best_loss"]
        return cls(**values | {"cursor": Cursor(**values["cursor"]), "best_loss": best})

    def count_skip(self, config: LoopConfig, description: str) -> None:
        """Count this step as one whose gradient was not finite; raises FloatingPointError when that is too many."""
        self.skipped_steps += 1
        self.skipped_in_a_row += 1
        step, remedy = self.step, "Lower the learning rate or use fp32."
        allowed = config.max_skipped_share * config.num_steps
        if self.skipped_steps > max(1.0, allowed):
            raise FloatingPointError(
                f"{description}: {self.skipped_steps} gradients up to step {step} were not finite "
                f"(at most {allowed:.0f} are allowed). {remedy}"
            )
        if self.skipped_in_a_row >= config.max_skipped_in_a_row:
            raise FloatingPointError(
                f"{description}: the last {self.skipped_in_a_row} gradients up to step {step} were not finite. {remedy}"
            )

    def take_means(self) -> dict[str, float]:
        """Empty the window and return its means; a figure that only some steps have is averaged over those."""
        names = dict.fromkeys(name for figures in self.window for name in figures)
        found = {name: [figures[name] for figures in self.window if name in figures] for name in names}
        self.window.clear()
        return {name: sum(values) / len(values) for name, values in found.items()}

    def recent_loss(self) -> float | None:
        """Return the mean loss since the last log line, or that of the last line; None before the first step."""
        losses = [figures["loss"] for figures in self.window]
        losses = losses or next(([figures["loss"]] for figures in reversed(self.history) if "loss" in figures), [])
        return sum(losses) / len(losses) if losses else None
