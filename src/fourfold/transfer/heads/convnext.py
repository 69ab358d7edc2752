"""The ConvNeXt head of MultiMAE (arXiv 2204.01678, appendix C.4), which 4M-21 uses for segmentation and depth.

Each patch becomes a square of predictions with fewer channels; ConvNeXt blocks (arXiv 2201.03545) refine them.
"""

# B batch, D width of the network, C channels of the head, K outputs, h w patches, s predictions along a side of a patch

import torch
from torch import Tensor, nn
from torch.nn import functional

from fourfold.transfer.head_sizes import DenseHeadConfig


class ConvNeXtBlock(nn.Module):
    """Depthwise 7 × 7 convolution, layer norm, two pointwise layers with GELU between, and a shortcut; without layer scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.up = nn.Linear(channels, 4 * channels)
        self.down = nn.Linear(4 * channels, channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        y_BHWC = self.norm(self.mix(x_BCHW).movedim(1, -1))
        return x_BCHW + self.down(functional.gelu(self.up(y_BHWC))).movedim(-1, 1)


class ConvNeXtHead(nn.Module):
    """Feature maps → maps with s times as many rows and columns."""

    num_maps = 1  # of the network, the last ones, that it reads

    def __init__(self, width: int, outputs: int, config: DenseHeadConfig) -> None:
        super().__init__()
        self.side = round(config.predictions_per_patch**0.5)
        self.project = nn.Conv2d(width, config.width * config.predictions_per_patch, 1)
        self.blocks = nn.Sequential(*(ConvNeXtBlock(config.width) for _ in range(config.depth)))
        self.predict = nn.Conv2d(config.width, outputs, 1)
        for module in self.modules():
            if isinstance(module, nn.Linear) or module is self.project:
                assert isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return (B, K, s · h, s · w) of maps (B, D, h, w), of which the last is read."""
        patches_BCHW = functional.pixel_shuffle(self.project(maps[-1]), self.side)
        return self.predict(self.blocks(patches_BCHW.contiguous(memory_format=torch.channels_last)))
