"""What a training run is told (`LoopConfig`), and what changes while it runs (`TrainingState`)."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fourfold.data.cursor import Cursor
from fourfold.training.config import LoopConfig
from fourfold.training.parallel import local


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


class WeightAverage:
    """Average of all trained parameters; `decay` is reached gradually, as (1 + steps) / (10 + steps) (TensorFlow's rule)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.tensors: dict[str, Tensor] = {name: parameter.detach().clone() for name, parameter in self._live.items()}

    @torch.no_grad()
    def update(self, steps_done: int) -> None:
        """Move towards the present weights, after step number `steps_done` (from 1)."""
        decay = min(self.decay, (1 + steps_done) / (10 + steps_done))
        torch._foreach_lerp_([*map(local, self.tensors.values())], [*map(local, self._live.values())], 1 - decay)

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over stored averages."""
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Let the model hold the averaged weights inside the block, and its own again after it, bit for bit."""
        own = {name: parameter.detach().clone() for name, parameter in self._live.items()}
        self._fill(self.tensors)
        try:
            yield
        finally:
            self._fill(own)

    @torch.no_grad()
    def _fill(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self._live.items():
            parameter.copy_(tensors[name])
