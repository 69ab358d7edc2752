"""The U-Net of 4M's diffusion decoders: denoises an image, given the codes of its tokens (arXiv 2312.06647 §A.3).

Residual and attention blocks of ADM (arXiv 2105.05233) on 4 × 4 patches (arXiv 2207.04316), which become channels. The
codes are resized to the grid of patches by nearest neighbor and concatenated as further channels. The last layer of
every block, and of the network, starts at zero. Modules are in the order of ADM's, so that names in released files can
be mapped (`released/names.py`).
"""

# B batch, C channels, H W pixels, h w token grid, D code width, E width of the embedded time, T time steps

import math

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from fourfold.configuration import Config

LONGEST_PERIOD = 10_000  # time steps, of the slowest sinusoid of the step embedding


class UNetConfig(Config):
    """Widths and depth; the defaults are those of all released U-Nets (`unet_patched`)."""

    patch_size: int = Field(default=4, ge=1, description="pixels per side of a patch, which becomes channels")
    width: int = Field(default=256, ge=8, description="channels of the first level")
    multipliers: tuple[int, ...] = Field(
        default=(1, 2, 2, 2),
        min_length=1,
        description="width of each level, in multiples of `width`; each level halves the size",
    )
    blocks_per_level: int = Field(default=3, ge=1)
    attention_at: tuple[int, ...] = Field(default=(4, 8), description="downsampling factors whose levels have attention")
    num_groups: int = Field(default=32, ge=1, description="of group normalization")

    @model_validator(mode="after")
    def _groups_divide_widths(self) -> "UNetConfig":
        if self.width % self.num_groups:
            raise ValueError(f"width is {self.width}; it must be a multiple of num_groups ({self.num_groups}).")
        return self

    @property
    def divisor(self) -> int:
        """Height and width of an image must be multiples of this."""
        return self.patch_size * 2 ** (len(self.multipliers) - 1)


class ResidualBlock(nn.Module):
    """skip(x) + conv(SiLU(norm(conv(SiLU(norm(x))) + time))), convolutions 3 × 3."""

    def __init__(self, channels_in: int, channels_out: int, time_width: int, num_groups: int):
        super().__init__()
        self.norm_in = nn.GroupNorm(num_groups, channels_in)
        self.conv_in = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.time = nn.Linear(time_width, channels_out)
        self.norm_out = nn.GroupNorm(num_groups, channels_out)
        self.conv_out = _zeroed(nn.Conv2d(channels_out, channels_out, 3, padding=1))
        self.skip = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x_BCHW: Tensor, time_BE: Tensor) -> Tensor:
        """Return (B, channels_out, H, W)."""
        inner_BCHW = self.conv_in(F.silu(self.norm_in(x_BCHW))) + self.time(F.silu(time_BE))[:, :, None, None]
        return self.skip(x_BCHW) + self.conv_out(F.silu(self.norm_out(inner_BCHW)))


class AttentionBlock(nn.Module):
    """x + out(attention(norm(x))) over all positions, with one head."""

    def __init__(self, channels: int, num_groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(num_groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.out = _zeroed(nn.Conv1d(channels, channels, 1))

    def forward(self, x_BCHW: Tensor, time_BE: Tensor) -> Tensor:
        """Return the same shape; the time is not used."""
        q, k, v = self.qkv(self.norm(x_BCHW).flatten(2)).transpose(1, 2).chunk(3, dim=-1)
        attended_BNC = F.scaled_dot_product_attention(q, k, v)
        return x_BCHW + self.out(attended_BNC.transpose(1, 2)).unflatten(2, x_BCHW.shape[2:])


class Resample(nn.Module):
    """A 3 × 3 convolution with stride 2, which halves the size, or after doubling the size (nearest neighbor)."""

    def __init__(self, channels: int, doubles: bool):
        super().__init__()
        self.doubles = doubles
        self.conv = nn.Conv2d(channels, channels, 3, stride=1 if doubles else 2, padding=1)

    def forward(self, x_BCHW: Tensor, time_BE: Tensor) -> Tensor:
        """Return (B, C, H / 2, W / 2) or (B, C, 2 H, 2 W)."""
        return self.conv(F.interpolate(x_BCHW, scale_factor=2, mode="nearest") if self.doubles else x_BCHW)


class Entry(nn.Conv2d):
    """The first convolution, with the signature of the other layers."""

    def forward(self, x_BCHW: Tensor, time_BE: Tensor | None = None) -> Tensor:
        """Return (B, width, H, W)."""
        return super().forward(x_BCHW)


class UNet(nn.Module):
    """(noisy image (B, C, H, W), time step (B,), codes (B, D, h, w)) → predicted image (B, C, H, W)."""

    def __init__(self, channels: int, code_width: int, config: UNetConfig):
        super().__init__()
        self.config = config
        patch, time_width, widths = config.patch_size**2, 4 * config.width, [m * config.width for m in config.multipliers]
        self.time_in, self.time_out = nn.Linear(config.width, time_width), nn.Linear(time_width, time_width)

        def level(channels_in: int, channels_out: int, factor: int) -> list[nn.Module]:
            layers: list[nn.Module] = [ResidualBlock(channels_in, channels_out, time_width, config.num_groups)]
            return layers + [AttentionBlock(channels_out, config.num_groups)] * (factor in config.attention_at)

        # 1) Down: each stage's output has `kept` channels, which the way up receives as a skip connection
        current, factor = widths[0], 1
        down: list[list[nn.Module]] = [[Entry(channels * patch + code_width, current, 3, padding=1)]]
        kept = [current]
        for number, width in enumerate(widths):
            for _ in range(config.blocks_per_level):
                down.append(level(current, width, factor))
                current = width
                kept.append(current)
            if number < len(widths) - 1:
                down.append([Resample(current, doubles=False)])
                kept.append(current)
                factor *= 2
        # 2) The middle always has attention
        middle = [
            ResidualBlock(current, current, time_width, config.num_groups),
            AttentionBlock(current, config.num_groups),
            ResidualBlock(current, current, time_width, config.num_groups),
        ]
        # 3) Up: one block more for each level, each with a skip connection
        up: list[list[nn.Module]] = []
        for number, width in reversed(list(enumerate(widths))):
            for block in range(config.blocks_per_level + 1):
                up.append(level(current + kept.pop(), width, factor))
                current = width
                if number and block == config.blocks_per_level:
                    up[-1].append(Resample(current, doubles=True))
                    factor //= 2
        self.down = nn.ModuleList(nn.ModuleList(stage) for stage in down)
        self.middle = nn.ModuleList(middle)
        self.up = nn.ModuleList(nn.ModuleList(stage) for stage in up)
        self.norm_out = nn.GroupNorm(config.num_groups, current)
        self.conv_out = _zeroed(nn.Conv2d(current, channels * patch, 3, padding=1))

    def forward(self, noisy_BCHW: Tensor, step_B: Tensor, codes_BDhw: Tensor) -> Tensor:
        """Return the predicted image (B, C, H, W); raises ValueError when the image cannot be halved often enough."""
        if any(side % self.config.divisor for side in noisy_BCHW.shape[2:]):
            raise ValueError(
                f"Images have {tuple(noisy_BCHW.shape[2:])} pixels; this U-Net needs multiples of {self.config.divisor} "
                "(patch_size, times 2 for each level but the last). Change multipliers or patch_size."
            )
        time_BE = self.time_out(F.silu(self.time_in(embed_steps(step_B, self.config.width))))
        patches_BCHW = F.pixel_unshuffle(noisy_BCHW, self.config.patch_size)
        x_BCHW = torch.cat([patches_BCHW, F.interpolate(codes_BDhw, patches_BCHW.shape[2:], mode="nearest")], dim=1)
        kept = []
        for stage in self.down:
            x_BCHW = _through(stage, x_BCHW, time_BE)
            kept.append(x_BCHW)
        x_BCHW = _through(self.middle, x_BCHW, time_BE)
        for stage in self.up:
            x_BCHW = _through(stage, torch.cat([x_BCHW, kept.pop()], dim=1), time_BE)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x_BCHW))), self.config.patch_size)


def embed_steps(step_B: Tensor, width: int) -> Tensor:
    """Return cosines, then sines, of the time step at geometric frequencies: (B, width) float32, `width` even."""
    half = width // 2
    frequencies = torch.exp(-math.log(LONGEST_PERIOD) * torch.arange(half, dtype=torch.float32, device=step_B.device) / half)
    angles_BF = step_B[:, None].float() * frequencies
    return torch.cat([angles_BF.cos(), angles_BF.sin()], dim=-1)


def _through(stage: nn.Module, x_BCHW: Tensor, time_BE: Tensor) -> Tensor:
    for layer in stage:  # type: ignore[attr-defined]
        x_BCHW = layer(x_BCHW, time_BE)
    return x_BCHW


def _zeroed(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
