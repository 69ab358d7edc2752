"""Training of a diffusion decoder for the tokens of a trained VQ-VAE (4M, arXiv 2312.06647 §A.3).

4M trains encoder and diffusion decoder together. Here the tokens exist first and stay fixed, so that the VQ-VAE's own
decoder and the diffusion decoder are compared on the same tokens.
"""

# B batch, C channels, H W pixels, L tokens of an image = h · w of the grid, D code width, N samples

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from fourfold.data.cursor import Cursor, index_batches, share_of
from fourfold.seeds import torch_generator
from fourfold.tokenizers.diffusion_decoder import DiffusionDecoder
from fourfold.tokenizers.networks.config import DiffusionDecoderConfig
from fourfold.tokenizers.networks.diffusion import add_noise
from fourfold.tokenizers.visual_tokenizer import VisualTokenizer
from fourfold.training.config import LoopConfig, ScheduleConfig
from fourfold.training.loop import TrainingSetup, train
from fourfold.training.optimizers import build_optimizer
from fourfold.training.parallel import ParallelModel
from fourfold.training.run_context import RunContext

ENCODE_BATCH_SIZE = 100  # images tokenized at once before training; bounds the memory


def train_diffusion_decoder(
    tokenizer: VisualTokenizer, values: np.ndarray, config: DiffusionDecoderConfig, context: RunContext
) -> DiffusionDecoder:
    """Train a decoder on stored values (N, ...) and the tokens that `tokenizer` makes of them.

    The loss is that of the VQ-VAE (MSE; smooth L1 for depth) between the clean image and the U-Net's prediction of it,
    at a uniformly drawn time step. With `context.folder`, a killed run resumes and ends in the same bytes. All
    processes of `context.processes` must hold the same values and tokenizer; each computes a slice of every batch.

    Returns:
        The decoder, with averaged weights.
    """
    processes, seed = context.processes, context.seed
    own_rows = share_of(config.batch_size, processes.rank, processes.size)
    decoder = DiffusionDecoder.untrained(tokenizer, config, seed)
    starts = range(0, len(values), ENCODE_BATCH_SIZE)
    tokens_NL = np.concatenate([tokenizer.tokens(values[start : start + ENCODE_BATCH_SIZE]) for start in starts])
    seed_path = ("tokenizers", tokenizer.name, "diffusion")
    unet = ParallelModel(decoder.unet, processes, "ddp")

    def batches(start: Cursor) -> Iterator[tuple[tuple[Tensor, Tensor], Cursor]]:
        for indices, cursor in index_batches(len(values), config.batch_size, seed, *seed_path, start=start):
            clean_BCHW = tokenizer.format.inputs(values[indices]).to(tokenizer.device)
            yield (clean_BCHW, decoder.codes(tokens_NL[indices[own_rows]])), cursor

    def loss(batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        clean_BCHW, codes_BDhw = batch
        # draw the noise of the whole batch, so that it does not depend on the number of processes
        noisy_BCHW, step_B = add_noise(clean_BCHW, config.noise, torch_generator(seed, *seed_path, "noise", step))
        mean = tokenizer.format.loss(unet(noisy_BCHW[own_rows], step_B[own_rows], codes_BDhw), clean_BCHW[own_rows])
        return processes.share_of_mean(mean, own_rows.stop - own_rows.start, config.batch_size), {}

    schedule = ScheduleConfig(warmup_steps=round(config.warmup_share * config.steps))
    optimizer = build_optimizer(decoder.unet, config.optimizer, {})
    train(
        TrainingSetup(decoder.unet, loss, batches, optimizer, config.steps, schedule),
        LoopConfig(
            clip_norm=config.gradient_clip,
            average_decay=config.average_decay,
            checkpoint_every=config.checkpoint_every,
        ),
        context,
        description=f"{tokenizer.name} diffusion decoder",
    )
    decoder.unet.eval()
    return decoder
