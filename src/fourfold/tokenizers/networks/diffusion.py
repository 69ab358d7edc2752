"""The noise schedule of 4M's diffusion decoders, and decoding (arXiv 2312.06647 §A.3).

T = 1000 steps, β linear from 1e-4 to 0.02 (DDPM, arXiv 2006.11239 §4), rescaled so that the last step contains no
signal (Lin et al., arXiv 2305.08891 §3.1). The network predicts the clean image x₀. Decoding is DDIM (arXiv 2010.02502)
with η = 0 over evenly spaced steps that start at the last one. The schedulers are those of `diffusers`.
"""

# B batch, C channels, H W pixels, D code width, h w token grid

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from fourfold.configuration import Config
from fourfold.tokenizers.networks.unet import UNet

# Our names → names in `diffusers` and in released files.
BETAS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
PREDICTIONS = {"clean": "sample", "noise": "epsilon", "velocity": "v_prediction"}


class NoiseConfig(Config):
    """The noise schedule; the defaults are those of all released U-Nets.

    `predicts` is the network's output: the clean image x₀, the noise ε, or the velocity √ᾱ·ε − √(1 − ᾱ)·x₀ (arXiv
    2202.00512).
    """

    num_steps: int = Field(default=1000, ge=2)
    betas: Literal["linear", "cosine"] = "linear"  # cosine: Nichol & Dhariwal, arXiv 2102.09672
    predicts: Literal["clean", "noise", "velocity"] = "clean"
    first_beta: float = Field(default=1e-4, gt=0, lt=1)
    last_beta: float = Field(default=0.02, gt=0, lt=1)
    zero_terminal_snr: bool = True


def add_noise(clean_BCHW: Tensor, config: NoiseConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return noisy images √ᾱ·x₀ + √(1 − ᾱ)·ε (DDPM, arXiv 2006.11239, eq. 4) and their drawn steps (B,) int64."""
    step_B = torch.randint(config.num_steps, (len(clean_BCHW),), generator=generator).to(clean_BCHW.device)
    noise_BCHW = torch.randn(clean_BCHW.shape, generator=generator).to(clean_BCHW)
    return training_scheduler(config).add_noise(clean_BCHW, noise_BCHW, step_B), step_B


@torch.inference_mode()
def denoise(
    unet: UNet,
    codes_BDhw: Tensor,
    image_shape: Sequence[int],
    seeds: Sequence[int],
    config: NoiseConfig,
    num_decoding_steps: int = 25,
    clip: bool = False,
) -> Tensor:
    """Return images (B, C, H, W) of codes by DDIM (arXiv 2010.02502, eq. 12 with η = 0).

    DDIM adds no noise after the start, so a seed gives the same image in any batch, up to the rounding of sums.

    Args:
        unet: the trained network.
        codes_BDhw: the condition.
        image_shape: (C, H, W).
        seeds: for each image, the seed of the noise that it starts from.
        config: the noise schedule of training.
        num_decoding_steps: DDIM steps.
        clip: clip each step's prediction to [-1, 1], for images that are in that range.

    Raises:
        ValueError: there are not as many seeds as codes, or more decoding steps than the schedule has.
    """
    if len(seeds) != len(codes_BDhw):
        raise ValueError(f"Got {len(seeds)} seeds for {len(codes_BDhw)} samples; each needs one.")
    if not 1 <= num_decoding_steps <= config.num_steps:
        raise ValueError(f"num_decoding_steps is {num_decoding_steps}; allowed: 1 to {config.num_steps}.")
    scheduler = decoding_scheduler(config, clip)
    scheduler.set_timesteps(num_decoding_steps)
    image_BCHW = torch.stack([torch.randn(*image_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    image_BCHW = image_BCHW.to(codes_BDhw.device)
    for step in scheduler.timesteps:
        predicted_BCHW = unet(image_BCHW, step.expand(len(image_BCHW)).to(codes_BDhw.device), codes_BDhw)
        image_BCHW = scheduler.step(predicted_BCHW.float(), step, image_BCHW).prev_sample
    return image_BCHW


@cache
def training_scheduler(config: NoiseConfig) -> Any:
    """Return the scheduler that adds noise; its `alphas_cumprod` are ᾱ."""
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler  # takes seconds to import, and only some runs need it

    return DDPMScheduler(**_arguments(config), clip_sample=False)


def decoding_scheduler(config: NoiseConfig, clip: bool) -> Any:
    """Return a new DDIM scheduler; `trailing` makes it start at the noisiest step (arXiv 2305.08891 §3.3)."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    return DDIMScheduler(**_arguments(config), clip_sample=clip, timestep_spacing="trailing", set_alpha_to_one=True)


def _arguments(config: NoiseConfig) -> dict[str, Any]:
    return {
        "num_train_timesteps": config.num_steps,
        "beta_start": config.first_beta,
        "beta_end": config.last_beta,
        "beta_schedule": BETAS[config.betas],
        "prediction_type": PREDICTIONS[config.predicts],
        "rescale_betas_zero_snr": config.zero_terminal_snr,
    }
