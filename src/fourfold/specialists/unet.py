"""The U-Net (Ronneberger et al. 2015, arXiv 1505.04597): an encoder, a decoder, and skip connections by concatenation.

It differs from the paper in three ways: batch normalization, padded convolutions (so that the output has the size of the
input), and a first convolution that takes 2 × 2 pixels as channels, as in the other small networks here.
"""

# B batch, C channels, H height, W width (any size)

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from fourfold.labelers.networks import convolution, normalize_pixels

PIXELS = 2  # pixels per side that the first convolution takes as channels


class UNet(nn.Module):
    """Computes `outputs` channels for every pixel; the width doubles at each of `depth` levels."""

    def __init__(self, outputs: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth)]
        self.factor = PIXELS * 2 ** (depth - 1)  # the size inside is a multiple of it
        self.first = _double(3 * PIXELS**2, widths[0])
        self.down = nn.ModuleList(_double(narrow, wide) for narrow, wide in pairwise(widths))
        self.halve = nn.ModuleList(nn.Conv2d(wide, narrow, 1) for narrow, wide in pairwise(widths))
        self.up = nn.ModuleList(_double(2 * narrow, narrow) for narrow in widths[:-1])
        self.last = nn.Conv2d(widths[0], outputs * PIXELS**2, 1)

    def forward(self, rgb_BHWC: Tensor) -> Tensor:
        """Return (B, outputs, H, W) for images uint8 (B, H, W, 3); a size that does not fit is padded at right and bottom."""
        height, width = rgb_BHWC.shape[1:3]
        pixels_BCHW = normalize_pixels(rgb_BHWC)
        padding = (0, -width % self.factor, 0, -height % self.factor)
        x = self.first(functional.pixel_unshuffle(functional.pad(pixels_BCHW, padding), PIXELS))
        skipped = []
        for block in self.down:
            skipped.append(x)
            x = block(functional.max_pool2d(x, 2))
        for halve, block, skip in reversed(list(zip(self.halve, self.up, skipped, strict=True))):
            # the decoder of DenseDepth up-samples like this too (arXiv 1812.11941, section 3.1)
            wider = functional.interpolate(halve(x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = block(torch.cat((wider, skip), 1))
        return functional.pixel_shuffle(self.last(x), PIXELS)[..., :height, :width]


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(convolution(inputs, outputs), convolution(outputs, outputs))
