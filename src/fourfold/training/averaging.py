"""An exponential moving average of the weights: smoother than the last step, often better in short runs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fourfold.training.parallel import local


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
