"""Released tokenizers with a diffusion decoder ("DiVAE", arXiv 2206.00386; 4M, arXiv 2312.06647 §A.3).

Encoder and bottleneck are those of the VQ-VAE (`vit_vqvae.py`); a U-Net conditioned on the codes replaces the decoder.
"""

# B batch, C channels, H W pixels, h w token grid

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fourfold.tokenizers.networks.diffusion import NoiseConfig, add_noise, denoise
from fourfold.tokenizers.networks.unet import UNet, UNetConfig
from fourfold.tokenizers.networks.vit_vqvae import VQConfig, VQEncoder


class DiVAEConfig(VQConfig):
    """Encoder and bottleneck as in `VQConfig`, a U-Net and its noise; the defaults are the released RGB tokenizer."""

    decoder: UNetConfig = UNetConfig()
    noise: NoiseConfig = NoiseConfig()
    clip_sample: bool = False  # images are in [-1, 1]: clip each DDIM step


class DiVAE(VQEncoder):
    """Encoder (B, C, H, W) → latents, codebook; tokens back to images by denoising."""

    config: DiVAEConfig

    def __init__(self, config: DiVAEConfig):
        super().__init__(config)
        self.decoder = UNet(config.channels, config.latent_width, config.decoder)

    def forward(self, inputs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the U-Net's prediction (B, C, H, W) for noised inputs and the commitment loss: one training pass."""
        clean_BCHW = self.prepare(inputs)
        noisy_BCHW, step_B = add_noise(clean_BCHW, self.config.noise, generator)
        quantized = self.bottleneck(self.encode(inputs), generator)
        codes_BDhw = self.bottleneck.merged(quantized.straight_through)
        return self.decoder(noisy_BCHW, step_B, codes_BDhw), self.code_loss(quantized)

    def reconstruct(self, tokens: Tensor | np.ndarray, seeds: Sequence[int], num_decoding_steps: int = 25) -> Tensor:
        """Return images (B, C, H, W) of token ids in any form that `id_grid` takes; `seeds` has one for each sample."""
        tokens = self.id_grid(tokens)
        scale = self.config.patch_size
        shape = (self.config.channels, tokens.shape[-2] * scale, tokens.shape[-1] * scale)
        with torch.inference_mode():
            codes_BDhw = self.bottleneck.merged(self.bottleneck.codes(tokens))
        noise, clip = self.config.noise, self.config.clip_sample
        return denoise(self.decoder, codes_BDhw, shape, seeds, noise, num_decoding_steps, clip)
