"""Plain baselines from torchvision: a ResNet or a small vision transformer with fresh weights."""

# B batch, D width, h w rows and columns of the map

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fourfold.labelers.networks import normalize_pixels
from fourfold.transfer.recipes import Network

SMALL_SIDE = 128  # pixels: smaller images keep more of their rows and columns
CELLS = 8  # patches along a side of a small image
PATCH = 16  # pixels of the patches of a larger one


class TorchvisionEncoder(nn.Module):
    """Pixels → feature maps or one vector per image, as `fourfold.transfer.baselines.ImageEncoder`."""

    network: Any

    def __init__(self, network: Network, side: int) -> None:
        """Build a network.

        Args:
            network: `resnet18` and `resnet50` (arXiv 1512.03385), or `vit`: ViT-Ti (arXiv 2012.12877), 12 blocks of width 192.
            side: of the images in pixels.
        """
        super().__init__()
        self.network, self.width = (_vit(side), 192) if network == "vit" else _resnet(network, side)
        self.is_transformer = network == "vit"

    def maps(self, rgb: np.ndarray) -> Tensor:
        """Return features (B, D, h, w) of uint8 (B, H, W, 3)."""
        device = next(self.parameters()).device
        pixels_BCHW = normalize_pixels(torch.from_numpy(np.ascontiguousarray(rgb))).to(device)
        if not self.is_transformer:
            return self.network(pixels_BCHW.contiguous(memory_format=torch.channels_last))
        tokens_BND = self.network._process_input(pixels_BCHW)
        first_B1D = self.network.class_token.expand(len(tokens_BND), -1, -1)
        side = self.network.image_size // self.network.patch_size
        return self.network.encoder(torch.cat([first_B1D, tokens_BND], dim=1))[:, 1:].mT.unflatten(2, (side, side))

    def forward(self, rgb: np.ndarray) -> Tensor:
        """Return the sum of the mean and the maximum of each channel (B, D), of uint8 (B, H, W, 3)."""
        features = self.maps(rgb)
        return features.mean(dim=(2, 3)) + features.amax(dim=(2, 3))


def _vit(side: int) -> nn.Module:
    from torchvision.models import VisionTransformer

    patch = PATCH if side >= SMALL_SIDE else max(1, side // CELLS)
    if side % patch:
        raise ValueError(f"Images of {side} pixels have no whole number of patches of {patch}. Choose `network: resnet18`.")
    return VisionTransformer(side, patch, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768)


def _resnet(network: Network, side: int) -> tuple[nn.Module, int]:
    """Return a ResNet without its head, and its width.

    The last stage keeps the size of the map, as in segmentation networks. For small images the first convolution is 3 × 3, and
    nothing is pooled: the map has 1/8 of the rows and columns, otherwise 1/16.
    """
    from torchvision import models

    whole: Any = models.get_model(network, weights=None)
    for module in whole.layer4[0].modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    if side < SMALL_SIDE:
        whole.conv1, whole.maxpool = nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.Identity()
    stages = (whole.layer1, whole.layer2, whole.layer3, whole.layer4)
    return nn.Sequential(whole.conv1, whole.bn1, whole.relu, whole.maxpool, *stages), whole.fc.in_features
