"""A diffusion decoder for the tokens of a VQ-VAE: token ids in, stored values out (4M, arXiv 2312.06647 §A.3)."""

# B batch, C channels, H W pixels, L tokens of an image = h · w of the grid, D code width

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from fourfold.digests import check_digests, write_recorded, write_recorded_json
from fourfold.seeds import derive_seed
from fourfold.storage import read_json
from fourfold.tokenizers import REMEDY
from fourfold.tokenizers.networks.config import DiffusionDecoderConfig
from fourfold.tokenizers.networks.diffusion import denoise
from fourfold.tokenizers.networks.unet import UNet
from fourfold.tokenizers.networks.vqvae import channels_first
from fourfold.tokenizers.visual_tokenizer import SETTINGS_FILE, WEIGHTS_FILE, VisualTokenizer


class DiffusionDecoder:
    """Turns ids (B, L) of one tokenizer into stored values by denoising."""

    def __init__(self, tokenizer: VisualTokenizer, unet: UNet, config: DiffusionDecoderConfig):
        self.tokenizer, self.unet, self.config = tokenizer, unet, config

    @classmethod
    def untrained(cls, tokenizer: VisualTokenizer, config: DiffusionDecoderConfig, seed: int) -> "DiffusionDecoder":
        """Return a decoder with seeded initial weights.

        Raises:
            ValueError: the tokenizer's images cannot be halved as often as the U-Net needs.
        """
        shape = tokenizer.model.shape
        height, width = shape.input_size()
        if height % config.unet.divisor or width % config.unet.divisor:
            raise ValueError(
                f"{tokenizer.name}: images have {height} × {width} pixels; this U-Net needs "
                f"multiples of {config.unet.divisor}. Configure fewer multipliers or a smaller patch_size."
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "tokenizers", tokenizer.name, "diffusion", "weights"))
            unet = UNet(shape.output_channels, tokenizer.config.latent_width, config.unet).to(tokenizer.device)
        return cls(tokenizer, unet, config)

    def codes(self, tokens: np.ndarray, grid: tuple[int, int] | None = None) -> Tensor:
        """Return the U-Net's condition: codes (B, D, h, w) of ids (B, L) or (B, h, w) on `grid`."""
        return channels_first(self.tokenizer.model.codebook.codes(self.tokenizer.token_grid(tokens, grid)))

    def decode(self, tokens: np.ndarray, seeds: Sequence[int], grid: tuple[int, int] | None = None) -> np.ndarray:
        """Return stored values (B, ...) of ids (B, L) on `grid`; each sample's noise comes from its entry of `seeds`.

        Raises:
            ValueError: the number of tokens is wrong, an id is not a code, or there are not as many seeds as samples.
        """
        shape = self.tokenizer.model.shape
        image_shape = (shape.output_channels, *shape.input_size(grid))
        noise, num_steps = self.config.noise, self.config.num_decoding_steps
        values_format = self.tokenizer.format
        images_BCHW = denoise(self.unet, self.codes(tokens, grid), image_shape, seeds, noise, num_steps, values_format.bounded)
        return values_format.values(images_BCHW.cpu())

    def save(self, folder: Path) -> None:
        """Write settings, then weights, each atomically."""
        write_recorded_json(folder, SETTINGS_FILE, self.config.model_dump(mode="json"))
        write_recorded(folder, WEIGHTS_FILE, save({key: value.contiguous() for key, value in self.unet.state_dict().items()}))

    @classmethod
    def load(cls, folder: Path, tokenizer: VisualTokenizer) -> "DiffusionDecoder":
        """Read a folder that `save` wrote; `tokenizer` is the one whose tokens the decoder was trained on."""
        check_digests(folder, REMEDY, SETTINGS_FILE, WEIGHTS_FILE)
        decoder = cls.untrained(tokenizer, DiffusionDecoderConfig(**read_json(folder / SETTINGS_FILE)), seed=0)
        decoder.unet.load_state_dict(load_file(folder / WEIGHTS_FILE))
        decoder.unet.eval()
        return decoder
