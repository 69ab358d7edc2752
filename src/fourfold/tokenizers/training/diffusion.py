"""Training of a diffusion decoder for the tokens of a trained VQ-VAE."""

# B batch, C channels, H W pixels, L tokens of an image = h · w of the grid, N samples

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from fourfold.data.cursor import Cursor, index_batches, share_of
from fourfold.metric_log import MetricLog, NullMetricLog
from fourfold.seeds import torch_generator
from fourfold.tokenizers.diffusion_decoder import DiffusionDecoder
from fourfold.tokenizers.networks.config import DiffusionDecoderConfig
from fourfold.tokenizers.networks.diffusion import add_noise
from fourfold.tokenizers.visual_tokenizer import VisualTokenizer
from fourfold.training.config import LoopConfig, ScheduleConfig
from fourfold.training.loop import TrainingSetup, train
from fourfold.training.optimizers import build_optimizer
from fourfold.training.parallel import ParallelModel
from fourfold.training.process_group import ProcessGroup
from fourfold.training.run_context import RunContext

TOKENIZED_AT_ONCE = 100  # images


def train_diffusion_decoder(
    tokenizer: VisualTokenizer,
    values: np.ndarray,
    config: DiffusionDecoderConfig,
    seed: int,
    folder: Path | None = None,
    log: MetricLog | None = None,
    world: ProcessGroup | None = None,
) -> DiffusionDecoder:
    """Train a decoder on stored values (N, ...) and the tokens that `tokenizer` makes of them; return it with averaged weights.

    The loss is that of the VQ-VAE (MSE; smooth L1 for depth), between the clean image and what the U-Net thinks it is, at a
    uniformly drawn time step. With `folder` (claimed for this very training) a killed run goes on and ends in the same bytes.
    All processes of `world` hold the same values and tokenizer, and take a slice of each batch.
    """
    world = world or ProcessGroup()
    mine = share_of(config.batch_size, world.rank, world.size)
    decoder = DiffusionDecoder.untrained(tokenizer, config, seed)
    parts = range(0, len(values), TOKENIZED_AT_ONCE)
    tokens_NL = np.concatenate([tokenizer.tokens(values[start : start + TOKENIZED_AT_ONCE]) for start in parts])
    path = ("tokenizers", tokenizer.name, "diffusion")

    unet = ParallelModel(decoder.unet, world, "ddp")

    def batches(start: Cursor) -> Iterator[tuple[tuple[Tensor, Tensor], Cursor]]:
        for indices, cursor in index_batches(len(values), config.batch_size, seed, *path, start=start):
            clean_BCHW = tokenizer.format.inputs(values[indices]).to(tokenizer.device)
            yield (clean_BCHW, decoder.codes(tokens_NL[indices[mine]])), cursor

    def loss(batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        clean_BCHW, codes_BDhw = batch
        # the noise of the whole batch, whoever computes which of its samples
        noisy_BCHW, step_B = add_noise(clean_BCHW, config.noise, torch_generator(seed, *path, "noise", step))
        mean = tokenizer.format.loss(unet(noisy_BCHW[mine], step_B[mine], codes_BDhw), clean_BCHW[mine])
        return world.share_of_mean(mean, mine.stop - mine.start, config.batch_size), {}

    schedule = ScheduleConfig(warmup_steps=round(config.warmup_share * config.steps))
    optimizer = build_optimizer(decoder.unet, config.optimizer, {})
    train(
        TrainingSetup(decoder.unet, loss, batches, optimizer, config.steps, schedule),
        LoopConfig(
            clip_norm=config.gradient_clip,
            average_decay=config.average_decay,
            checkpoint_every=config.checkpoint_every,
        ),
        RunContext(seed, folder, log or NullMetricLog(), world),
        description=f"{tokenizer.name} diffusion decoder",
    )
    decoder.unet.eval()
    return decoder
