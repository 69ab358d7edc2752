"""What changes while a run trains: `TrainingState` (counters and curves) and `WeightAverage` (the moving average)."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fourfold.data.cursor import Cursor
from fourfold.training.config import LoopConfig
from fourfold.training.parallel import local


@dataclass
class TrainingState:
    """Everything beside the tensors that a resumed run needs; stored in every checkpoint and returned by `train`.

    Attributes:
        step: number of finished steps.
        cursor: position in the data after the last batch.
        skipped_steps: number of steps that were skipped because the gradient was not finite.
        skipped_in_a_row: how many of the latest steps were skipped.
        best_step, best_loss: step and value of the lowest validation loss so far.
        history: logged values, `{"step": ..., name: value}` each.
        window: metrics of each step since the last log line.
    """

    step: int = 0
    cursor: Cursor = field(default_factory=Cursor)
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)
    window: list[dict[str, float]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return asdict(self) | {"best_loss": None if math.isinf(self.best_loss) else self.best_loss}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TrainingState":
        """Return the state that `as_json` wrote."""
        best = math.inf if values["best_loss"] is None else values["best_loss"]
        return cls(**values | {"cursor": Cursor(**values["cursor"]), "best_loss": best})

    def count_skip(self, config: LoopConfig, num_steps: int, description: str) -> None:
        """Count the current step as skipped.

        Raises:
            FloatingPointError: if more steps were skipped than `config` allows, in all or in a row.
        """
        self.skipped_steps += 1
        self.skipped_in_a_row += 1
        advice = "Lower the learning rate or use fp32."
        allowed = config.max_skipped_share * num_steps
        if self.skipped_steps > max(1.0, allowed):
            raise FloatingPointError(
                f"{description}: {self.skipped_steps} gradients up to step {self.step} were not finite "
                f"(allowed: {allowed:.0f}). {advice}"
            )
        if self.skipped_in_a_row >= config.max_skipped_in_a_row:
            raise FloatingPointError(
                f"{description}: the last {self.skipped_in_a_row} gradients up to step {self.step} were not finite. {advice}"
            )

    def take_means(self) -> dict[str, float]:
        """Empty the window and return its means; a metric that only some steps have is averaged over those steps."""
        names = dict.fromkeys(name for metrics in self.window for name in metrics)
        values = {name: [metrics[name] for metrics in self.window if name in metrics] for name in names}
        self.window.clear()
        return {name: sum(column) / len(column) for name, column in values.items()}

    def recent_loss(self) -> float | None:
        """Return the mean loss since the last log line, else that of the last line; None before the first step."""
        losses = [metrics["loss"] for metrics in self.window]
        losses = losses or next(([metrics["loss"]] for metrics in reversed(self.history) if "loss" in metrics), [])
        return sum(losses) / len(losses) if losses else None


class WeightAverage:
    """Exponential moving average (EMA) of all trained parameters: smoother than the last step, often better in short runs.

    The decay of step t is min(`decay`, (1 + t) / (10 + t)), TensorFlow's rule, so that short runs forget their initial
    weights.

    The update is `torch.optim.swa_utils.get_ema_multi_avg_fn`. Its container, `AveragedModel`, is not used, because it
    copies the whole module (which FSDP2 refuses), starts from the weights after the first step instead of the initial
    ones, and cannot put the averages into the model for a validation.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.tensors: dict[str, Tensor] = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    @torch.no_grad()
    def update(self, steps_done: int) -> None:
        """Move the averages towards the current weights, after step number `steps_done` (from 1)."""
        decay = min(self.decay, (1 + steps_done) / (10 + steps_done))
        averages, weights = ([*map(local, tensors.values())] for tensors in (self.tensors, self._parameters))
        get_ema_multi_avg_fn(decay)(averages, weights, steps_done)

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Put the averages into the model inside the block, and the trained weights back after it, bit for bit."""
        trained = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        self._fill(self.tensors)
        try:
            yield
        finally:
            self._fill(trained)

    @torch.no_grad()
    def _fill(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(tensors[name])
