"""A diffusion decoder for the tokens of a trained VQ-VAE: its training, and its border to stored values."""

# B batch, C channels, H W pixels, L tokens of an image = h · w of the grid, N samples

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from fourfold.data.cursor import Cursor, index_batches, share_of
from fourfold.metric_log import MetricLog
from fourfold.seeds import derive_seed, torch_generator
from fourfold.storage import read_json, write_bytes, write_json
from fourfold.tokenizers.config import DiffusionDecoderConfig
from fourfold.tokenizers.diffusion import add_noise, denoise
from fourfold.tokenizers.unet import UNet
from fourfold.tokenizers.visual import SETTINGS_FILE, WEIGHTS_FILE, VisualTokenizer
from fourfold.tokenizers.vqvae import channels_first
from fourfold.training.config import LoopConfig, ScheduleConfig, lr_multiplier
from fourfold.training.loop import train
from fourfold.training.optimizers import build_optimizer
from fourfold.training.parallel import ParallelModel
from fourfold.training.process_group import ProcessGroup

TOKENIZED_AT_ONCE = 100  # images


class DiffusionDecoder:
    """Turns ids (B, L) of one tokenizer into stored values, by denoising."""

    def __init__(self, tokenizer: VisualTokenizer, unet: UNet, config: DiffusionDecoderConfig):
        self.tokenizer, self.unet, self.config = tokenizer, unet, config

    @classmethod
    def untrained(cls, tokenizer: VisualTokenizer, config: DiffusionDecoderConfig, seed: int) -> "DiffusionDecoder":
        """Return a decoder at its start. Raises ValueError when the tokenizer's images cannot be halved often enough."""
        shape = tokenizer.model.shape
        height, width = shape.input_size()
        if height % config.unet.divisor or width % config.unet.divisor:
            raise ValueError(
                f"{tokenizer.name}: images of {height} × {width} pixels; this U-Net needs multiples of {config.unet.divisor}. "
                "Give it fewer multipliers or a smaller patch_size."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "tokenizers", tokenizer.name, "diffusion", "weights"))
            unet = UNet(shape.output_channels, tokenizer.config.latent_width, config.unet).to(tokenizer.device)
        return cls(tokenizer, unet, config)

    def codes(self, tokens: np.ndarray, grid: tuple[int, int] | None = None) -> Tensor:
        """Return what the U-Net sees of ids (B, L) or (B, h, w) on `grid`: codes (B, D, h, w)."""
        return channels_first(self.tokenizer.model.codebook.codes(self.tokenizer.token_grid(tokens, grid)))

    def decode(self, tokens: np.ndarray, seeds: Sequence[int], grid: tuple[int, int] | None = None) -> np.ndarray:
        """Return values as they are stored of ids (B, L) on `grid`; each sample's noise comes from its own seed.

        Raises ValueError as the tokenizer's own `decode` does.
        """
        shape = self.tokenizer.model.shape
        size = (shape.output_channels, *shape.input_size(grid))
        noise, steps = self.config.noise, self.config.num_decoding_steps
        values_format = self.tokenizer.format
        images_BCHW = denoise(self.unet, self.codes(tokens, grid), size, seeds, noise, steps, values_format.bounded)
        return values_format.values(images_BCHW.cpu())

    def save(self, folder: Path) -> None:
        """Write settings, then weights, each whole or absent."""
        write_json(folder / SETTINGS_FILE, self.config.model_dump(mode="json"))
        write_bytes(folder / WEIGHTS_FILE, save({key: value.contiguous() for key, value in self.unet.state_dict().items()}))

    @classmethod
    def load(cls, folder: Path, tokenizer: VisualTokenizer) -> "DiffusionDecoder":
        """Read what `save` wrote; `tokenizer` is the one whose tokens it decodes."""
        decoder = cls.untrained(tokenizer, DiffusionDecoderConfig(**read_json(folder / SETTINGS_FILE)), seed=0)
        decoder.unet.load_state_dict(load_file(folder / WEIGHTS_FILE))
        decoder.unet.eval()
        return decoder


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
        return world.part(mean, mine.stop - mine.start, config.batch_size), {}

    schedule = ScheduleConfig(warmup_steps=round(config.warmup_share * config.steps))
    train(
        decoder.unet,
        loss,
        batches,
        build_optimizer(decoder.unet, config.optimizer, {}),
        partial(lr_multiplier, schedule, num_steps=config.steps),
        LoopConfig(
            num_steps=config.steps,
            clip_norm=config.gradient_clip,
            average_decay=config.average_decay,
            checkpoint_every=config.checkpoint_every,
        ),
        folder=folder,
        log=log,
        description=f"{tokenizer.name} diffusion decoder",
        world=world,
    )
    decoder.unet.eval()
    return decoder
