"""The ViT encoder and decoder of 4M's tokenizers (arXiv 2312.06647 §A.3), for images and feature maps.

Pre-LN blocks with GELU, fixed sin-cos position embeddings that are resized to the input's grid, a residual tanh MLP at
the end of each trunk (ViT-VQGAN, arXiv 2110.04627 §3.1), and optionally two ConvNeXt blocks on the output against seams
between patches.
"""

# B batch, C channels, H W pixels, h w token grid, N tokens, D width

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from fourfold.configuration import Config
from fourfold.model.embeddings import sincos_2d

NORM_EPSILON = 1e-6


class TrunkConfig(Config):
    """A stack of transformer blocks; the default is ViT-B."""

    dim: int = Field(default=768, ge=4, multiple_of=4)
    depth: int = Field(default=12, ge=1)
    num_heads: int = Field(default=12, ge=1)
    mlp_ratio: float = Field(default=4.0, gt=0)
    post_mlp: bool = True

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> "TrunkConfig":
        if self.dim % self.num_heads:
            raise ValueError(f"dim is {self.dim}; it must be a multiple of num_heads ({self.num_heads}).")
        return self


class Mlp(nn.Module):
    """down(activation(up(x)))."""

    def __init__(self, dim: int, hidden: int, activation: nn.Module):
        super().__init__()
        self.up, self.activation, self.down = nn.Linear(dim, hidden), activation, nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return the same shape."""
        return self.down(self.activation(self.up(x)))


class Block(nn.Module):
    """x + attention(LN x), then x + MLP(LN x), all with biases."""

    def __init__(self, config: TrunkConfig):
        super().__init__()
        self.num_heads = config.num_heads
        self.attention_norm = nn.LayerNorm(config.dim, eps=NORM_EPSILON)
        self.qkv, self.out = nn.Linear(config.dim, 3 * config.dim), nn.Linear(config.dim, config.dim)
        self.mlp_norm = nn.LayerNorm(config.dim, eps=NORM_EPSILON)
        self.mlp = Mlp(config.dim, int(config.mlp_ratio * config.dim), nn.GELU())

    def forward(self, x_BND: Tensor) -> Tensor:
        """Return the same shape."""
        qkv = self.qkv(self.attention_norm(x_BND)).unflatten(-1, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        x_BND = x_BND + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x_BND + self.mlp(self.mlp_norm(x_BND))


class Trunk(nn.Module):
    """Position embeddings, blocks, and the residual tanh MLP, which runs in float32."""

    position_1Dhw: Tensor

    def __init__(self, config: TrunkConfig, grid: tuple[int, int]):
        super().__init__()
        table_PD = sincos_2d(*grid, config.dim)
        self.register_buffer("position_1Dhw", table_PD.T.unflatten(1, grid)[None].contiguous())
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.post_norm = nn.LayerNorm(config.dim, eps=NORM_EPSILON) if config.post_mlp else None
        self.post_mlp = Mlp(config.dim, int(config.mlp_ratio * config.dim), nn.Tanh()) if config.post_mlp else None

    def forward(self, x_BDhw: Tensor) -> Tensor:
        """Return the same shape; position embeddings are resized (bicubic) to the grid of the input."""
        grid = x_BDhw.shape[2:]
        position = F.interpolate(self.position_1Dhw, size=grid, mode="bicubic", align_corners=False)
        x_BND = (x_BDhw + position).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x_BND = block(x_BND)
        if self.post_mlp is not None and self.post_norm is not None:
            with torch.autocast(x_BND.device.type, enabled=False):
                x_BND = x_BND.float() + self.post_mlp(self.post_norm(x_BND.float()))
        return x_BND.transpose(1, 2).unflatten(2, grid)


class ConvNeXtBlock(nn.Module):
    """x + scale · MLP(LN(depthwise 7 × 7(x))) (arXiv 2201.03545)."""

    def __init__(self, channels: int):
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=NORM_EPSILON)
        self.mlp = Mlp(channels, 4 * channels, nn.GELU())
        self.scale_C = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the same shape."""
        x_BHWC = self.mlp(self.norm(self.spatial(x_BCHW).permute(0, 2, 3, 1)))
        return x_BCHW + (self.scale_C * x_BHWC).permute(0, 3, 1, 2)


class ViTEncoder(nn.Module):
    """(B, C, H, W) → (B, D, h, w): patches, or the cells of a feature map (`patch_size` 1), through a trunk."""

    def __init__(self, channels: int, patch_size: int, grid: tuple[int, int], config: TrunkConfig):
        super().__init__()
        self.project = nn.Conv2d(channels, config.dim, patch_size, stride=patch_size)
        self.trunk = Trunk(config, grid)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return features (B, D, h, w); raises ValueError when patches do not divide the image."""
        size = self.project.stride[0]
        if x_BCHW.shape[2] % int(size) or x_BCHW.shape[3] % int(size):
            raise ValueError(f"Inputs of {tuple(x_BCHW.shape[2:])} cannot be cut into patches of {size}. Crop or pad them.")
        return self.trunk(self.project(x_BCHW))


class ViTDecoder(nn.Module):
    """(B, D, h, w) → (B, C, H, W)."""

    def __init__(self, channels: int, patch_size: int, grid: tuple[int, int], config: TrunkConfig, output_blocks: bool = False):
        super().__init__()
        self.trunk = Trunk(config, grid)
        self.project = nn.Linear(config.dim, channels * patch_size**2)  # rows: channel, row, column
        self.unpatch = nn.PixelShuffle(patch_size)
        blocks = [ConvNeXtBlock(channels), ConvNeXtBlock(channels)] if output_blocks else []
        self.output_blocks = nn.Sequential(*blocks)

    def forward(self, x_BDhw: Tensor) -> Tensor:
        """Return pixels, logits or features (B, C, H, W)."""
        patches_BChw = self.project(self.trunk(x_BDhw).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.output_blocks(self.unpatch(patches_BChw))
