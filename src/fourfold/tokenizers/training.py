"""Training of one VQ-VAE: first as a plain autoencoder, then through the codebook, last the decoder alone on final codes."""

# B batch, C channels, H W pixels, h w token grid, D latent width, N samples

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fourfold.data.cursor import Cursor, index_batches
from fourfold.metric_log import MetricLog
from fourfold.seeds import derive_seed, numpy_generator, torch_generator
from fourfold.tokenizers.config import VisualTokenizerConfig
from fourfold.tokenizers.formats import DenseFormat, dense_format, measure_statistics
from fourfold.tokenizers.visual import VisualTokenizer
from fourfold.tokenizers.vqvae import VQVAE, VQVAEShape
from fourfold.training.loop import LoopConfig, train
from fourfold.training.optimizers import build_optimizer
from fourfold.training.schedules import ScheduleConfig, factor

LATENTS_PER_CODE = 24  # for k-means


def train_visual_tokenizer(
    name: str,
    values: np.ndarray,
    num_classes: int,
    grid: tuple[int, int],
    config: VisualTokenizerConfig,
    seed: int,
    folder: Path | None = None,
    log: MetricLog | None = None,
) -> VisualTokenizer:
    """Train the VQ-VAE of label `name` on its stored values (N, ...) and return it.

    With `folder` (claimed for this very training) a killed run goes on from its last checkpoint and ends in the same bytes.
    Raises ValueError when there are fewer samples than a batch needs or the grid does not divide the values.
    """
    values_format = dense_format(name, measure_statistics(name, values), num_classes)
    shape = VQVAEShape.of(values_format.inputs(values[:1]), grid)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "tokenizers", name, "weights"))
        model = VQVAE(shape, config)
    phases = _Phases(name, values, values_format, model, config, seed)
    num_steps = config.steps + config.decoder_steps
    schedule = ScheduleConfig(warmup_steps=round(config.warmup_share * num_steps))
    matrices = {key: 1 for key, weight in model.named_parameters() if weight.ndim == 4 and "embedding" not in key}
    train(
        model,
        phases.loss,
        phases.batches,
        build_optimizer(model, config.optimizer, matrices),
        partial(factor, schedule, num_steps=num_steps),
        LoopConfig(num_steps=num_steps, clip_norm=config.gradient_clip, checkpoint_every=config.checkpoint_every),
        folder=folder,
        log=log,
        description=f"{name} tokenizer",
    )
    return VisualTokenizer(name, values_format, model.eval(), config)


class _Phases:
    """What is minimised at which step. All that is drawn at random comes from the step, so that resuming is exact."""

    def __init__(
        self,
        name: str,
        values: np.ndarray,
        values_format: DenseFormat,
        model: VQVAE,
        config: VisualTokenizerConfig,
        seed: int,
    ):
        self.name, self.values, self.format, self.model, self.config, self.seed = (
            name,
            values,
            values_format,
            model,
            config,
            seed,
        )
        tokens_per_batch = config.batch_size * model.shape.grid[0] * model.shape.grid[1]
        model.codebook.dead_code_threshold = tokens_per_batch / config.codebook_size / config.dead_code_divisor

    def batches(self, start: Cursor) -> Iterator[tuple[Tensor, Cursor]]:
        """Yield inputs (B, C, H, W) in a seeded order without end."""
        order = index_batches(len(self.values), self.config.batch_size, self.seed, "tokenizers", self.name, start=start)
        for indices, cursor in order:
            yield self.format.inputs(self.values[indices]), cursor

    def loss(self, inputs_BCHW: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of the phase that `step` lies in, and figures."""
        if step < self.config.unquantised_steps:
            return self.format.loss(self.model.decode(self.model.encode(inputs_BCHW)), inputs_BCHW), {}
        if step < self.config.steps:
            return self._quantised(inputs_BCHW, step)
        with torch.no_grad():
            if step == self.config.steps:
                self.model.codebook.settle(self._sample_latents("settle"), self._generator("settle", step))
            codes_BhwD = self.model.codebook(self.model.encode(inputs_BCHW)).codes
        return self.format.loss(self.model.decode(codes_BhwD), inputs_BCHW), {}

    def _quantised(self, inputs_BCHW: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        if step == self.config.unquantised_steps:
            self.model.codebook.initialise(self._sample_latents("place"), self._generator("place", step))
        latents_BhwD = self.model.encode(inputs_BCHW)
        quantized = self.model.codebook(latents_BhwD)
        reconstruction = self.format.loss(self.model.decode(quantized.straight_through), inputs_BCHW)
        replaced = self.model.codebook.update(latents_BhwD, quantized.tokens, self._generator("replace", step))
        figures = {
            "reconstruction": reconstruction,
            "commitment": quantized.commitment,
            "replaced": torch.tensor(float(replaced)),
        }
        return reconstruction + self.config.commitment_weight * quantized.commitment, figures

    @torch.no_grad()
    def _sample_latents(self, purpose: str) -> Tensor:
        """Return latents (T, D) of samples drawn for k-means, `LATENTS_PER_CODE` a code if there are enough."""
        rows, columns = self.model.shape.grid
        wanted = -(-self.config.codebook_size * LATENTS_PER_CODE // (rows * columns))
        order = numpy_generator(self.seed, "tokenizers", self.name, purpose).permutation(len(self.values))[:wanted]
        parts = [order[start : start + self.config.batch_size] for start in range(0, len(order), self.config.batch_size)]
        return torch.cat([self.model.encode(self.format.inputs(self.values[part])).flatten(0, 2) for part in parts])

    def _generator(self, purpose: str, step: int) -> torch.Generator:
        return torch_generator(self.seed, "tokenizers", self.name, purpose, step)
