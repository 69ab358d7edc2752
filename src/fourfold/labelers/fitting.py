"""Training of small teachers with the training loop that all models share; Muon updates the convolutions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from fourfold.configuration import Config
from fourfold.data.cursor import index_batches
from fourfold.seeds import derive_seed
from fourfold.training.config import LoopConfig, ScheduleConfig
from fourfold.training.loop import TrainingSetup, train
from fourfold.training.optimizers import OptimizerConfig, build_optimizer
from fourfold.training.run_context import RunContext

Losses = Callable[[np.ndarray, int], dict[str, Tensor]]  # (indices of samples, step) → losses, to be summed


class FitConfig(Config):
    """Settings of one training run."""

    steps: int = Field(400, ge=1)
    batch_size: int = Field(32, ge=1)  # samples
    warmup: float = Field(0.1, ge=0, lt=1)  # share of the steps; then the rate falls to zero along half a cosine
    optimizer: OptimizerConfig = OptimizerConfig(learning_rate=3e-3, weight_decay=0.01, muon_learning_rate=0.02)


@contextmanager
def seeded_weights(seed: int, name: str) -> Iterator[None]:
    """Seed the initial weights of modules created in this context; torch's global random state is restored afterward."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "teachers", name, "weights"))
        yield


def fit(module: nn.Module, losses: Losses, num_samples: int, config: FitConfig, name: str, context: RunContext) -> None:
    """Train `module` in place and set it to evaluation mode.

    Muon updates the kernels of convolutions, as in the fastest published trainings on CIFAR-10 (arXiv 2404.00498 and its
    successor), and AdamW all other parameters.

    Args:
        module: the network.
        losses: (indices of samples, step) → the losses of a batch by name; their sum is minimized.
        num_samples: number of samples, from which the order of indices is drawn.
        config: steps, batch size and optimizer.
        name: enters the random streams and the names of metrics.
        context: the seed, the log that receives the losses, and the folder that a killed training resumes from.
    """
    kernels = {f"{n}.weight": 1 for n, m in module.named_modules() if isinstance(m, nn.Conv2d | nn.Conv1d)}
    optimizer = build_optimizer(module, config.optimizer, kernels)
    schedule = ScheduleConfig(warmup_steps=round(config.warmup * config.steps))

    def compute_loss(indices: np.ndarray, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        parts = losses(indices, step)
        return torch.stack(list(parts.values())).sum(), {f"{name}/{part}": value for part, value in parts.items()}

    batch_size = min(config.batch_size, num_samples)
    setup = TrainingSetup(
        module,
        compute_loss,
        lambda cursor: index_batches(num_samples, batch_size, context.seed, "teachers", name, start=cursor),
        optimizer,
        config.steps,
        schedule,
    )
    train(setup, LoopConfig(), context, description=f"{name} teacher")
    module.eval()
