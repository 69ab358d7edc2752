"""A diffusion decoder for the tokens of a trained VQ-VAE: its training, and its border to stored values."""

# B batch, C channels, H W pixels, L tokens of an image = h · w of the grid, N samples

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from fourfold.seeds import derive_seed
from fourfold.storage import read_json, write_bytes, write_json
from fourfold.tokenizers.networks.config import DiffusionDecoderConfig
from fourfold.tokenizers.networks.diffusion import denoise
from fourfold.tokenizers.networks.unet import UNet
from fourfold.tokenizers.networks.vqvae import channels_first
from fourfold.tokenizers.visual_tokenizer import SETTINGS_FILE, WEIGHTS_FILE, VisualTokenizer

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
