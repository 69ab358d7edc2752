"""Convolutional blocks for small networks that are fast on a CPU and accept images of any size.

Shapes: B batch, C channels, H, W height and width of the image (multiples of 8).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from fourfold.modalities import IMAGENET_MEAN, IMAGENET_STD


def normalize_pixels(rgb_BHWC: Tensor) -> Tensor:
    """Return float32 (B, 3, H, W), normalized by ImageNet's mean and standard deviation, of pixels uint8 (B, H, W, 3)."""
    mean, std = torch.tensor(IMAGENET_MEAN) * 255, torch.tensor(IMAGENET_STD) * 255
    return ((rgb_BHWC.float() - mean) / std).movedim(-1, 1)


def with_coordinates(x_BCHW: Tensor) -> Tensor:
    """Return the input with two more channels, x and y in [-1, 1] (CoordConv, arXiv 1807.03247): position hints at depth."""
    B, _, H, W = x_BCHW.shape
    y_HW, x_HW = torch.meshgrid(torch.linspace(-1, 1, H), torch.linspace(-1, 1, W), indexing="ij")
    coordinates_BCHW = torch.stack((x_HW, y_HW)).expand(B, 2, H, W)
    return torch.cat((x_BCHW, coordinates_BCHW), 1)


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Return convolution, batch normalization and ReLU as one module."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """Two 3 × 3 convolutions with a shortcut (arXiv 1512.03385)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.norm.weight)  # a block starts as the identity

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return functional.relu(x_BCHW + self.norm(self.second(self.first(x_BCHW))))


class Encoder(nn.Module):
    """Computes feature maps at 1/2, 1/4 and 1/8 of the size from pixels and their coordinates."""

    def __init__(self, widths: tuple[int, int, int], blocks: tuple[int, int, int]) -> None:
        super().__init__()
        self.stem = convolution(4 * 3 + 2, widths[0])
        self.fine = nn.Sequential(*(Residual(widths[0]) for _ in range(blocks[0])))
        self.to_middle = convolution(widths[0], widths[1], stride=2)
        self.middle = nn.Sequential(*(Residual(widths[1]) for _ in range(blocks[1])))
        self.to_coarse = convolution(widths[1], widths[2], stride=2)
        self.coarse = nn.Sequential(*(Residual(widths[2]) for _ in range(blocks[2])))

    def forward(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the fine (1/2), middle (1/4) and coarse (1/8) maps of pixels from `normalize_pixels`.

        The first convolution takes 2 × 2 pixels as channels: no information is lost, and nothing is computed at full size.
        """
        fine = self.fine(self.stem(with_coordinates(functional.pixel_unshuffle(pixels_BCHW, 2))))
        middle = self.middle(self.to_middle(fine))
        return fine, middle, self.coarse(self.to_coarse(middle))


class Decoder(nn.Module):
    """Adds coarse maps to finer ones (a U-Net, arXiv 1505.04597, with sums instead of concatenations)."""

    def __init__(self, widths: tuple[int, int, int]) -> None:
        super().__init__()
        self.from_coarse = nn.Conv2d(widths[2], widths[1], 1)
        self.middle = Residual(widths[1])
        self.from_middle = nn.Conv2d(widths[1], widths[0], 1)
        self.fine = Residual(widths[0])

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Return the fine (1/2) and middle (1/4) maps."""
        middle = self.middle(middle + functional.interpolate(self.from_coarse(coarse), scale_factor=2.0))
        return self.fine(fine + functional.interpolate(self.from_middle(middle), scale_factor=2.0)), middle
