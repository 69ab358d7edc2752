"""The MLP on both sides of the codebooks of global vectors and poses in 4M-21 (arXiv 2406.09406 §3).

A stack of inverted-bottleneck blocks (Bachmann et al., "Scaling MLPs", arXiv 2306.13575): x + down(GELU(up(LN x))).
"""

# B batch, C channels, h w grid cells (1 × 1 for a vector), D width

import re

from pydantic import Field
from torch import Tensor, nn

from fourfold.configuration import Config
from fourfold.tokenizers.networks.vit import Mlp

NAME = re.compile(r"BottleneckMLP/B_(\d+)-Wi_(\d+)(?:-E_(\d+))?")


class VectorMlpConfig(Config):
    """Number of blocks, their width, and the ratio of their hidden width; the defaults are the released ones."""

    num_blocks: int = Field(default=6, ge=1)
    width: int = Field(default=1024, ge=1)
    expansion: int = Field(default=4, ge=1)

    @property
    def dim(self) -> int:
        """Width at the end next to the codebook."""
        return self.width

    @property
    def name(self) -> str:
        """Name in released files, e.g. `BottleneckMLP/B_6-Wi_1024`."""
        return f"BottleneckMLP/B_{self.num_blocks}-Wi_{self.width}" + (f"-E_{self.expansion}" if self.expansion != 4 else "")

    @classmethod
    def from_name(cls, name: str) -> "VectorMlpConfig | None":
        """Return the configuration of a name in a released file, None if it names something else."""
        if (match := NAME.fullmatch(name)) is None:
            return None
        blocks, width, expansion = match.groups()
        return cls(num_blocks=int(blocks), width=int(width), expansion=int(expansion or 4))


class VectorMlp(nn.Module):
    """(B, C, h, w) → (B, C', h, w), each grid cell separately."""

    def __init__(self, channels_in: int, channels_out: int, config: VectorMlpConfig):
        super().__init__()
        self.enter, self.leave = nn.Linear(channels_in, config.width), nn.Linear(config.width, channels_out)
        hidden = config.expansion * config.width
        self.blocks = nn.ModuleList(Mlp(config.width, hidden, nn.GELU()) for _ in range(config.num_blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(config.num_blocks))  # eps 1e-5, unlike the ViTs

    def forward(self, x_BChw: Tensor) -> Tensor:
        """Return (B, channels_out, h, w)."""
        x_BhwD = self.enter(x_BChw.permute(0, 2, 3, 1))
        for block, norm in zip(self.blocks, self.norms, strict=True):
            x_BhwD = x_BhwD + block(norm(x_BhwD))
        return self.leave(x_BhwD).permute(0, 3, 1, 2)
