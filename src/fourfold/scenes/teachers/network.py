"""The teacher of depth, segmentation and boxes for the scenes: one small network with a head for each.

Three networks would each learn the same edges. One network that learns all three tasks in the same steps is better at each
of them for the same compute, and labels an image in one forward pass.

Shapes: B batch, C channels, H, W pixels (multiples of 8), K classes, h, w cells of 4 × 4 pixels.
"""

import math
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fourfold.configuration import Config
from fourfold.labelers.fitting import FitConfig
from fourfold.labelers.networks import Decoder, Encoder, normalize_pixels
from fourfold.scenes.world.vocabulary import CLASS_NAMES, OBJECT_CLASSES

TYPICAL_DEPTH = 5.0  # meters; output of the untrained network
INITIAL_HEAT = math.log(0.02 / 0.98)  # logit of the untrained heat map: objects are rare (arXiv 1708.02002, section 3.3)


class SceneNetworkConfig(Config):
    """Size and training of the network. Weights of pixels are relative to those of the ground."""

    widths: tuple[int, int, int] = (24, 48, 96)  # channels at 1/2, 1/4 and 1/8 of the size
    blocks: tuple[int, int, int] = (1, 1, 2)  # residual blocks at each
    fit: FitConfig = FitConfig(steps=450, batch_size=16)
    flip: bool = True  # half of the samples of a batch are mirrored
    object_weight: float = Field(2.0, gt=0)  # of object pixels, in depth
    sky_weight: float = Field(0.2, gt=0)  # of sky pixels, in depth
    slope_weight: float = Field(2.0, ge=0)  # of depth differences between neighbors on one surface, which decide the normals
    object_class_weight: float = Field(3.0, gt=0)  # of object pixels, in segmentation
    depth_weight: float = Field(6.0, ge=0)  # of the three losses
    semseg_weight: float = Field(2.0, ge=0)
    box_weight: float = Field(0.3, ge=0)


@dataclass(frozen=True)
class SceneOutputs:
    """Outputs of the network for a batch."""

    log_depth_BHW: Tensor
    classes_BKHW: Tensor  # logits over CLASS_NAMES
    heat_BKhw: Tensor  # logits over OBJECT_CLASSES
    offsets_B4hw: Tensor  # box sides relative to the cell's center, in 0-1


class SceneNetwork(nn.Module):
    """A U-Net: its fine maps give depth and classes by 2 × 2 pixel shuffling, its middle maps give boxes."""

    def __init__(self, config: SceneNetworkConfig) -> None:
        super().__init__()
        fine, middle, _ = config.widths
        self.encoder = Encoder(config.widths, config.blocks)
        self.decoder = Decoder(config.widths)
        self.dense = nn.Conv2d(fine, 4 * (1 + len(CLASS_NAMES)), 1)
        self.boxes = nn.Conv2d(middle, len(OBJECT_CLASSES) + 4, 1)
        self.boxes.bias = nn.Parameter(torch.tensor([INITIAL_HEAT] * len(OBJECT_CLASSES) + [0.0] * 4))

    def forward(self, rgb_BHWC: Tensor) -> SceneOutputs:
        """Return the outputs for images uint8 (B, H, W, 3)."""
        fine, middle = self.decoder(*self.encoder(normalize_pixels(rgb_BHWC)))
        dense_BKHW = functional.pixel_shuffle(self.dense(fine), 2)
        boxes_BChw = self.boxes(middle)
        return SceneOutputs(
            log_depth_BHW=dense_BKHW[:, 0] + math.log(TYPICAL_DEPTH),
            classes_BKHW=dense_BKHW[:, 1:],
            heat_BKhw=boxes_BChw[:, : len(OBJECT_CLASSES)],
            offsets_B4hw=boxes_BChw[:, len(OBJECT_CLASSES) :],
        )
