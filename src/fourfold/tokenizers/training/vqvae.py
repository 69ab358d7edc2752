"""Training of one VQ-VAE: first as a plain autoencoder, then through the codebook, last the decoder alone on final codes.

Several processes may train it together (`ProcessGroup`): each takes its slice of every batch, DDP averages the gradients, and
the codebook is moved by the sums over all (`codebook.py`), so all end with the weights of one process that had whole batches.
"""

# B batch, C channels, H W pixels, h w token grid, D latent width, N samples

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fourfold.data.cursor import Cursor, index_batches, share_of
from fourfold.metric_log import MetricLog, NullMetricLog
from fourfold.modalities import label
from fourfold.seeds import derive_seed, numpy_generator, torch_generator
from fourfold.tokenizers.formats import DenseFormat, dense_format, measure_statistics
from fourfold.tokenizers.networks.codebook import Quantized
from fourfold.tokenizers.networks.config import VisualTokenizerConfig
from fourfold.tokenizers.networks.vector_vqvae import VectorVQVAE
from fourfold.tokenizers.networks.vqvae import VQVAE, VQVAEShape
from fourfold.tokenizers.visual_tokenizer import VisualTokenizer, build_vqvae
from fourfold.training.config import LoopConfig, ScheduleConfig
from fourfold.training.loop import TrainingSetup, train
from fourfold.training.optimizers import build_optimizer
from fourfold.training.parallel import ParallelModel
from fourfold.training.precision import default_device
from fourfold.training.process_group import ProcessGroup
from fourfold.training.run_context import RunContext

LATENTS_PER_CODE = 24  # for k-means
Phase = Literal["plain", "quantized", "decoder"]


def train_visual_tokenizer(
    name: str,
    values: np.ndarray,
    num_classes: int,
    grid: tuple[int, int],
    config: VisualTokenizerConfig,
    seed: int,
    folder: Path | None = None,
    log: MetricLog | None = None,
    world: ProcessGroup | None = None,
) -> VisualTokenizer:
    """Train the VQ-VAE of label `name` on its stored values (N, ...) and return it.

    With `folder` (claimed for this very training) a killed run goes on from its last checkpoint and ends in the same bytes.
    All processes of `world` hold the same values. Raises ValueError when there are fewer samples than a batch needs, a batch
    has fewer than there are processes, or the grid does not divide the values.
    """
    world = world or ProcessGroup()
    values_format = dense_format(name, measure_statistics(name, values), num_classes)
    shape = VQVAEShape.of(values_format.inputs(values[:1]), grid, is_vector=label(name).kind == "vector")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "tokenizers", name, "weights"))
        model = build_vqvae(shape, config).to(default_device())
    learning = (name, values, values_format, config, seed, world)
    phases = _AveragedCodes(model, *learning) if isinstance(model, VQVAE) else _LearnedCodes(model, *learning)
    num_steps = config.steps + config.decoder_steps
    schedule = ScheduleConfig(warmup_steps=round(config.warmup_share * num_steps))
    matrices = {key: 1 for key, weight in model.named_parameters() if weight.ndim == 4 and "embedding" not in key}
    optimizer = build_optimizer(model, config.optimizer, matrices)
    train(
        TrainingSetup(model, phases.loss, phases.batches, optimizer, num_steps, schedule),
        LoopConfig(clip_norm=config.gradient_clip, checkpoint_every=config.checkpoint_every),
        RunContext(seed, folder, log or NullMetricLog(), world),
        description=f"{name} tokenizer",
    )
    return VisualTokenizer(name, values_format, model.eval(), config)


class _Pass(nn.Module):
    """A training pass of one phase as a module, which is what DDP wraps."""

    def __init__(self, model: VQVAE):
        super().__init__()
        self.model = model

    def forward(self, inputs_BCHW: Tensor, phase: Phase) -> tuple[Tensor, Tensor, Quantized | None]:
        """Return the reconstruction (B, C, H, W), the latents (B, h, w, D) and what the codebook chose."""
        with torch.set_grad_enabled(phase != "decoder" and torch.is_grad_enabled()):
            latents_BhwD = self.model.encode(inputs_BCHW)
        if phase == "plain":
            return self.model.decode(latents_BhwD), latents_BhwD, None
        quantized = self.model.codebook(latents_BhwD)
        seen_BhwD = quantized.codes if phase == "decoder" else quantized.straight_through
        return self.model.decode(seen_BhwD), latents_BhwD, quantized


class _Phases:
    """What is minimized at which step. All that is drawn at random comes from the step, so that resuming is exact."""

    def __init__(
        self,
        run: nn.Module,
        name: str,
        values: np.ndarray,
        values_format: DenseFormat,
        config: VisualTokenizerConfig,
        seed: int,
        world: ProcessGroup,
    ):
        self.name, self.values, self.format = name, values, values_format
        self.config, self.seed, self.world = config, seed, world
        self.mine = share_of(config.batch_size, world.rank, world.size)
        # the encoder has no gradient in the last phase
        self.run = ParallelModel(run, world, "ddp", some_unused=True)

    def batches(self, start: Cursor) -> Iterator[tuple[Tensor, Cursor]]:
        """Yield inputs (B, C, H, W), this process's of each batch, in a seeded order without end."""
        order = index_batches(len(self.values), self.config.batch_size, self.seed, "tokenizers", self.name, start=start)
        for indices, cursor in order:
            yield self._inputs(indices[self.mine]), cursor

    def _part(self, mean: Tensor) -> Tensor:
        """Return the part that the mean over this process's samples has in the mean over all."""
        return self.world.share_of_mean(mean, self.mine.stop - self.mine.start, self.config.batch_size)

    def _inputs(self, indices: np.ndarray) -> Tensor:
        return self.format.inputs(self.values[indices]).to(default_device())

    def _generator(self, purpose: str, step: int) -> torch.Generator:
        return torch_generator(self.seed, "tokenizers", self.name, purpose, step)


class _LearnedCodes(_Phases):
    """Global vectors: codes by gradient, then the decoder alone."""

    def __init__(self, model: VectorVQVAE, *learning: Any):
        super().__init__(model, *learning)
        self.codebook = model.codebook

    def loss(self, inputs_BC11: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return this process's part of the loss."""
        decoder_alone = step >= self.config.steps
        if decoder_alone:
            output_BC11 = self.run(inputs_BC11, None, True)
        else:  # the noise of the whole batch, whoever computes which of its samples
            noise_BNTK = self.codebook.noise(self.config.batch_size, 1, self._generator("choose", step))[self.mine]
            output_BC11 = self.run(inputs_BC11, noise_BNTK)
        return self._part(self.format.loss(output_BC11, inputs_BC11)), {}


class _AveragedCodes(_Phases):
    """Images and feature maps: as a plain autoencoder, through codes that follow their latents, then the decoder alone."""

    def __init__(self, model: VQVAE, *learning: Any):
        super().__init__(_Pass(model), *learning)
        self.model = model
        tokens_per_batch = self.config.batch_size * model.shape.grid[0] * model.shape.grid[1]
        threshold = tokens_per_batch / self.config.codebook_size / self.config.dead_code_divisor
        model.codebook.dead_code_threshold = threshold

    def loss(self, inputs_BCHW: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return this process's part of the loss of the phase that `step` lies in, and of figures."""
        phase: Phase = "decoder" if step >= self.config.steps else "quantized"
        phase = "plain" if step < self.config.unquantized_steps else phase
        if step == self.config.unquantized_steps:
            self.model.codebook.initialize(self._sample_latents("place"), self._generator("place", step))
        if step == self.config.steps:
            self.model.codebook.settle(self._sample_latents("settle"), self._generator("settle", step))
        output_BCHW, latents_BhwD, quantized = self.run(inputs_BCHW, phase)
        reconstruction = self._part(self.format.loss(output_BCHW, inputs_BCHW))
        if phase != "quantized" or quantized is None:
            return reconstruction, {}
        replaced = self.model.codebook.update(latents_BhwD, quantized.tokens, self._generator("replace", step))
        commitment = self._part(quantized.commitment)
        figures = {
            "reconstruction": reconstruction,
            "commitment": commitment,
            "replaced": reconstruction.new_tensor(replaced / self.world.size),  # equally many on each process
        }
        return reconstruction + self.config.commitment_weight * commitment, figures

    @torch.no_grad()
    def _sample_latents(self, purpose: str) -> Tensor:
        """Return latents (T, D) of samples drawn for k-means, `LATENTS_PER_CODE` a code if there are enough."""
        rows, columns = self.model.shape.grid
        wanted = -(-self.config.codebook_size * LATENTS_PER_CODE // (rows * columns))
        order = numpy_generator(self.seed, "tokenizers", self.name, purpose).permutation(len(self.values))[:wanted]
        parts = [order[start : start + self.config.batch_size] for start in range(0, len(order), self.config.batch_size)]
        return torch.cat([self.model.encode(self._inputs(part)).flatten(0, 2) for part in parts])
