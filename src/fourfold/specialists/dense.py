"""The specialists of dense labels: a U-Net for segmentation and a U-Net after DenseDepth for depth."""

# B batch, K classes, H height, W width, N samples

from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fourfold.modalities.class_table import MAX_ID, ClassTable
from fourfold.specialists.depth_loss import MAX_INVERSE, dense_depth_losses
from fourfold.specialists.protocol import (
    Facts,
    LabeledImages,
    Specialist,
    SpecialistConfig,
    SpecialistNetwork,
    mirrored_maps,
)
from fourfold.specialists.surveys import positive_depths, survey_classes
from fourfold.specialists.unet import UNet

NEAREST = 0.001  # quantile of the training depth that counts as the nearest depth
IGNORED = -100  # target that cross-entropy leaves out


class UNetConfig(SpecialistConfig):
    """Size and training of a U-Net."""

    width: int = Field(24, ge=4)  # channels of the finest level, at half the size of the image
    depth: int = Field(4, ge=2, le=6)  # levels; each halves the size and doubles the channels


class DepthUNetConfig(UNetConfig):
    """Size and training of the U-Net for depth."""

    # λ of DenseDepth's loss, 0.1 in the paper. With 0.1 a short training first flattens the map: after 80 steps on 8 scenes the
    # AbsRel was that of a constant (0.46 and 0.43), with 1.0 it was 0.09
    l1_weight: float = Field(1.0, gt=0)


class SegmentationUNet(SpecialistNetwork):
    """Pixels → the most likely class of every pixel, learned by cross-entropy."""

    def __init__(self, config: UNetConfig, table: ClassTable) -> None:
        super().__init__()
        self.table = table
        self.network = UNet(table.num_classes, config.width, config.depth)
        of_id = torch.tensor([i if i < table.num_classes else IGNORED for i in range(MAX_ID + 1)])
        of_id[list(table.ignored)] = IGNORED
        self.register_buffer("target_of_id", of_id, persistent=False)

    def losses(self, rgb_BHWC: Tensor, values: Any) -> dict[str, Tensor]:
        """Return the cross-entropy over the pixels with a class; `values` are class ids uint8 (B, H, W)."""
        target_BHW = self.target_of_id[torch.from_numpy(np.ascontiguousarray(values)).long().to(rgb_BHWC.device)]  # type: ignore[index]
        loss = functional.cross_entropy(self.network(rgb_BHWC), target_BHW, ignore_index=IGNORED, reduction="sum")
        return {"cross_entropy": loss / target_BHW.ne(IGNORED).sum().clamp(min=1)}

    def predict(self, rgb_BHWC: Tensor) -> np.ndarray:
        """Return class ids uint8 (B, H, W)."""
        return self.network(rgb_BHWC).argmax(1).to(torch.uint8).cpu().numpy()


class DepthUNet(SpecialistNetwork):
    """Pixels → depth in the unit of the labels, learned as inverse depth by the loss of DenseDepth."""

    def __init__(self, config: DepthUNetConfig, nearest: float, typical: float, farthest: float) -> None:
        super().__init__()
        self.l1_weight = config.l1_weight
        self.nearest, self.farthest = nearest, farthest
        self.network = UNet(1, config.width, config.depth)
        # the untrained network predicts the typical depth; softplus(bias) is its inverse
        nn.init.constant_(self.network.last.bias, float(np.log(np.expm1(nearest / typical))))  # type: ignore[arg-type]

    def losses(self, rgb_BHWC: Tensor, values: Any) -> dict[str, Tensor]:
        """Return the three losses of DenseDepth; `values` are depths (B, H, W). Those that are not positive do not count."""
        depth_BHW = torch.from_numpy(np.asarray(values, np.float32)).to(rgb_BHWC.device)
        valid_BHW = depth_BHW.isfinite() & (depth_BHW > 0)
        inverse_BHW = MAX_INVERSE * self.nearest / torch.where(valid_BHW, depth_BHW, self.nearest)
        return dense_depth_losses(self.inverse(rgb_BHWC), inverse_BHW.clamp(max=MAX_INVERSE), valid_BHW, self.l1_weight)

    def inverse(self, rgb_BHWC: Tensor) -> Tensor:
        """Return the inverse depth y (B, H, W), positive."""
        # scaled, because outputs of around 1 are within reach of the optimizer's first steps
        return MAX_INVERSE * functional.softplus(self.network(rgb_BHWC)[:, 0])

    def predict(self, rgb_BHWC: Tensor) -> np.ndarray:
        """Return depth float32 (B, H, W), at most the farthest of the training data."""
        inverse_BHW = self.inverse(rgb_BHWC).clamp(min=MAX_INVERSE * self.nearest / self.farthest)
        return (MAX_INVERSE * self.nearest / inverse_BHW).float().cpu().numpy()


def survey_depth(data: LabeledImages) -> Facts:
    """Return the nearest, the typical and the farthest depth; raises ValueError when no pixel has a depth."""
    depth_N = positive_depths(data)
    nearest = float(np.quantile(depth_N, NEAREST))
    return {"nearest": nearest, "typical": float(np.median(depth_N)), "farthest": float(depth_N.max())}


def _build_segmentation(config: UNetConfig, facts: Facts) -> SegmentationUNet:
    return SegmentationUNet(config, ClassTable.model_validate(facts["class_table"]))


def _build_depth(config: DepthUNetConfig, facts: Facts) -> DepthUNet:
    return DepthUNet(config, facts["nearest"], facts["typical"], facts["farthest"])


DENSE_SPECIALISTS = (
    Specialist(
        name="unet_segmentation",
        title="U-Net",
        target="semseg",
        source="arXiv 1505.04597",
        config_class=UNetConfig,
        survey=survey_classes,
        build=_build_segmentation,
        mirror=mirrored_maps,
    ),
    Specialist(
        name="unet_depth",
        title="U-Net after DenseDepth",
        target="depth",
        source="arXiv 1812.11941",
        config_class=DepthUNetConfig,
        survey=survey_depth,
        build=_build_depth,
        mirror=mirrored_maps,
    ),
)
