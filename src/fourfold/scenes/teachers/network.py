"""The default teacher of depth, segmentation and boxes: one small network with a head for each.

Three networks would each see the same objects and learn the same edges; one that learns all three from the same steps is
better at each for the same time, and labels with one pass.

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
from fourfold.labelers.protocol import Batch
from fourfold.scenes.world.vocabulary import CLASS_NAMES, OBJECT_CLASSES

TYPICAL_DEPTH = 5.0  # meters; where the untrained network starts
RARE_HEAT = math.log(0.02 / 0.98)  # the untrained heat-map is almost nowhere hot


class SceneNetworkConfig(Config):
    """Size and training of the network. Weights are relative to those of ground."""

    widths: tuple[int, int, int] = (24, 48, 96)  # channels at 1/2, 1/4 and 1/8 of the size
    blocks: tuple[int, int, int] = (1, 1, 2)  # residual blocks at each
    fit: FitConfig = FitConfig(steps=450, batch_size=16)
    flip: bool = True  # half of the samples of a batch are mirrored
    object_weight: float = Field(2.0, gt=0)  # of object pixels, in depth
    sky_weight: float = Field(0.2, gt=0)  # of sky pixels, in depth
    slope_weight: float = Field(2.0, ge=0)  # of depth differences between neighbors on one surface: normals live on them
    object_class_weight: float = Field(3.0, gt=0)  # of object pixels, in segmentation
    depth_gain: float = Field(6.0, ge=0)  # of the three losses
    semseg_gain: float = Field(2.0, ge=0)
    box_gain: float = Field(0.3, ge=0)


@dataclass(frozen=True)
class SceneOutputs:
    """What the network says of a batch."""

    log_depth_BHW: Tensor
    classes_BKHW: Tensor  # logits over CLASS_NAMES
    heat_BKhw: Tensor  # logits over OBJECT_CLASSES
    offsets_B4hw: Tensor  # box sides relative to the cell's center, in 0-1


class SceneNetwork(nn.Module):
    """A U-Net whose fine maps give depth and classes by 2 × 2 pixel shuffling, whose middle maps give boxes."""

    def __init__(self, config: SceneNetworkConfig) -> None:
        super().__init__()
        fine, middle, _ = config.widths
        self.encoder = Encoder(config.widths, config.blocks)
        self.decoder = Decoder(config.widths)
        self.dense = nn.Conv2d(fine, 4 * (1 + len(CLASS_NAMES)), 1)
        self.boxes = nn.Conv2d(middle, len(OBJECT_CLASSES) + 4, 1)
        self.boxes.bias = nn.Parameter(torch.tensor([RARE_HEAT] * len(OBJECT_CLASSES) + [0.0] * 4))

    def forward(self, rgb_BHWC: Tensor) -> SceneOutputs:
        """Return what is seen in uint8 pixels (B, H, W, 3)."""
        fine, middle = self.decoder(*self.encoder(normalize_pixels(rgb_BHWC)))
        dense_BKHW = functional.pixel_shuffle(self.dense(fine), 2)
        boxes_BChw = self.boxes(middle)
        return SceneOutputs(
            log_depth_BHW=dense_BKHW[:, 0] + math.log(TYPICAL_DEPTH),
            classes_BKHW=dense_BKHW[:, 1:],
            heat_BKhw=boxes_BChw[:, : len(OBJECT_CLASSES)],
            offsets_B4hw=boxes_BChw[:, len(OBJECT_CLASSES) :],
        )

    def look(self, batch: Batch) -> SceneOutputs:
        """Return the outputs for `batch["rgb"]`, computed by the first labeler that asks and left in the batch for others."""
        if "scene_network" not in batch:
            with torch.inference_mode():
                batch["scene_network"] = self(torch.from_numpy(batch["rgb"]))
        return batch["scene_network"]
