"""Training of one VQ-VAE in three phases: plain autoencoder, through the codebook, decoder alone on the final codes.

Several processes may train it together (`ProcessGroup`). Each computes its slice of every batch, DDP averages the
gradients, and the codebook is updated with sums over all processes (`networks/codebook.py`). All processes end with the
weights that one process with whole batches would have.
"""

# B batch, C channels, H W pixels, h w token grid, D latent width, K codes, T latents, N samples

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fourfold.data.cursor import Cursor, index_batches, share_of
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
from fourfold.training.run_context import RunContext

LATENTS_PER_CODE = 24  # latents that k-means sees for each code: fewer leave codes without a cluster
Phase = Literal["plain", "quantized", "decoder"]


@dataclass(frozen=True)
class TrainingValues:
    """The stored values of one dense label that its tokenizer is trained on.

    Attributes:
        name: the label, e.g. `depth`.
        values: (N, ...) in the dtype and layout of the shards.
        grid: rows and columns of tokens that one value becomes.
        num_classes: number of class ids; only labels of class ids use it.
    """

    name: str
    values: np.ndarray
    grid: tuple[int, int]
    num_classes: int = 0


def train_visual_tokenizer(data: TrainingValues, config: VisualTokenizerConfig, context: RunContext) -> VisualTokenizer:
    """Train the VQ-VAE of one dense label and return it.

    With `context.folder`, a killed run resumes from its last checkpoint and ends in the same bytes. All processes of
    `context.processes` must hold the same values.

    Raises:
        ValueError: there are fewer samples than a batch needs, fewer samples in a batch than processes, or the grid
            does not divide the values.
    """
    name, seed = data.name, context.seed
    # 1) The statistics of the values, and a network of the right shape with seeded weights
    values_format = dense_format(name, measure_statistics(name, data.values), data.num_classes)
    shape = VQVAEShape.of(values_format.inputs(data.values[:1]), data.grid, is_vector=label(name).kind == "vector")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "tokenizers", name, "weights"))
        model = build_vqvae(shape, config).to(default_device())
    # 2) Image codebooks follow running averages of their latents; vector codebooks learn by gradient
    objective: _Objective = (
        _AveragedCodesObjective(model, data, values_format, config, context)
        if isinstance(model, VQVAE)
        else _LearnedCodesObjective(model, data, values_format, config, context)
    )
    # 3) One schedule over all phases: warm-up, then cosine to 0
    num_steps = config.steps + config.decoder_steps
    schedule = ScheduleConfig(warmup_steps=round(config.warmup_share * num_steps))
    # Muon orthogonalizes convolution kernels as matrices; position embeddings are 4-dimensional too but no matrices
    matrices = {key: 1 for key, weight in model.named_parameters() if weight.ndim == 4 and "embedding" not in key}
    optimizer = build_optimizer(model, config.optimizer, matrices)
    train(
        TrainingSetup(model, objective.loss, objective.batches, optimizer, num_steps, schedule),
        LoopConfig(clip_norm=config.gradient_clip, checkpoint_every=config.checkpoint_every),
        context,
        description=f"{name} tokenizer",
    )
    return VisualTokenizer(name, values_format, model.eval(), config)


class _Objective(ABC):
    """Batches of one training and the loss of each step; all randomness derives from the step, for exact resuming."""

    def __init__(
        self,
        network: nn.Module,
        data: TrainingValues,
        values_format: DenseFormat,
        config: VisualTokenizerConfig,
        context: RunContext,
    ):
        self.data, self.format, self.config = data, values_format, config
        self.seed, self.processes = context.seed, context.processes
        self.own_rows = share_of(config.batch_size, self.processes.rank, self.processes.size)
        # the encoder has no gradient in the last phase
        self.network = ParallelModel(network, self.processes, "ddp", some_unused=True)

    def batches(self, start: Cursor) -> Iterator[tuple[Tensor, Cursor]]:
        """Yield this process's inputs (B, C, H, W) of each batch, endlessly, in a seeded order."""
        path = ("tokenizers", self.data.name)
        for indices, cursor in index_batches(len(self.data.values), self.config.batch_size, self.seed, *path, start=start):
            yield self._inputs(indices[self.own_rows]), cursor

    @abstractmethod
    def loss(self, inputs_BCHW: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return this process's part of the loss and of the reported metrics."""

    def _partial(self, mean: Tensor) -> Tensor:
        """Return what the mean over this process's samples contributes to the mean over the whole batch."""
        return self.processes.share_of_mean(mean, self.own_rows.stop - self.own_rows.start, self.config.batch_size)

    def _inputs(self, indices: np.ndarray) -> Tensor:
        return self.format.inputs(self.data.values[indices]).to(default_device())

    def _generator(self, purpose: str, step: int) -> torch.Generator:
        return torch_generator(self.seed, "tokenizers", self.data.name, purpose, step)


class _LearnedCodesObjective(_Objective):
    """Global vectors: codes learned by gradient, then the decoder alone."""

    def __init__(self, model: VectorVQVAE, *settings: Any):
        super().__init__(model, *settings)
        self.codebook = model.codebook

    def loss(self, inputs_BC11: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        decoder_alone = step >= self.config.steps
        if decoder_alone:
            output_BC11 = self.network(inputs_BC11, None, True)
        else:  # draw the noise of the whole batch, so that it does not depend on the number of processes
            noise_BNTK = self.codebook.noise(self.config.batch_size, 1, self._generator("choose", step))[self.own_rows]
            output_BC11 = self.network(inputs_BC11, noise_BNTK)
        return self._partial(self.format.loss(output_BC11, inputs_BC11)), {}


class _AveragedCodesObjective(_Objective):
    """Images and feature maps: plain autoencoder, then codes that follow their latents, then the decoder alone."""

    def __init__(self, model: VQVAE, *settings: Any):
        super().__init__(_TrainingPass(model), *settings)
        self.model = model
        tokens_per_batch = self.config.batch_size * model.shape.grid[0] * model.shape.grid[1]
        model.codebook.dead_code_threshold = tokens_per_batch / self.config.codebook_size / self.config.dead_code_divisor

    def loss(self, inputs_BCHW: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        phase = self._phase(step)
        # 1) At the borders between phases: k-means places the codes, and later settles them for good
        if step == self.config.unquantized_steps:
            self.model.codebook.initialize(self._sample_latents("place"), self._generator("place", step))
        if step == self.config.steps:
            self.model.codebook.settle(self._sample_latents("settle"), self._generator("settle", step))
        # 2) Reconstruction
        output_BCHW, latents_BhwD, quantized = self.network(inputs_BCHW, phase)
        reconstruction = self._partial(self.format.loss(output_BCHW, inputs_BCHW))
        if phase != "quantized" or quantized is None:
            return reconstruction, {}
        # 3) Codes follow their latents by moving averages, without gradient; the commitment loss pulls latents to codes
        num_replaced = self.model.codebook.update(latents_BhwD, quantized.tokens, self._generator("replace", step))
        commitment = self._partial(quantized.commitment)
        metrics = {
            "reconstruction": reconstruction,
            "commitment": commitment,
            # every process replaces the same codes, and the loop adds up the metrics of all processes
            "replaced": reconstruction.new_tensor(num_replaced / self.processes.size),
        }
        return reconstruction + self.config.commitment_weight * commitment, metrics

    def _phase(self, step: int) -> Phase:
        if step < self.config.unquantized_steps:
            return "plain"
        return "quantized" if step < self.config.steps else "decoder"

    @torch.no_grad()
    def _sample_latents(self, purpose: str) -> Tensor:
        """Return latents (T, D) of random samples for k-means: `LATENTS_PER_CODE` for each code if there are enough."""
        rows, columns = self.model.shape.grid
        num_samples = -(-self.config.codebook_size * LATENTS_PER_CODE // (rows * columns))  # rounded up
        generator = numpy_generator(self.seed, "tokenizers", self.data.name, purpose)
        order = generator.permutation(len(self.data.values))[:num_samples]
        batches = [order[start : start + self.config.batch_size] for start in range(0, len(order), self.config.batch_size)]
        return torch.cat([self.model.encode(self._inputs(indices)).flatten(0, 2) for indices in batches])


class _TrainingPass(nn.Module):
    """The forward pass of one phase as a module, because DDP wraps modules."""

    def __init__(self, model: VQVAE):
        super().__init__()
        self.model = model

    def forward(self, inputs_BCHW: Tensor, phase: Phase) -> tuple[Tensor, Tensor, Quantized | None]:
        """Return the reconstruction (B, C, H, W), the latents (B, h, w, D) and the codebook's choice, if any."""
        with torch.set_grad_enabled(phase != "decoder" and torch.is_grad_enabled()):
            latents_BhwD = self.model.encode(inputs_BCHW)
        if phase == "plain":
            return self.model.decode(latents_BhwD), latents_BhwD, None
        quantized = self.model.codebook(latents_BhwD)
        decoded_BhwD = quantized.codes if phase == "decoder" else quantized.straight_through
        return self.model.decode(decoded_BhwD), latents_BhwD, quantized
