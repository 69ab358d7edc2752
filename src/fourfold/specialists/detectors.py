"""The specialists of boxes: torchvision's Faster R-CNN (two stages) and FCOS (one stage, without anchors), both from scratch.

The library has the anchors, the matching, the losses, the decoding and the non-maximum suppression. What is here is a small
backbone for small images, settings that are relative to their size, and the conversion from and to the format of the shards.
"""

# B batch, H height, W width, K object classes, N boxes

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from fourfold.labelers.boxes import boxes_of
from fourfold.labelers.networks import Encoder
from fourfold.modalities import IMAGENET_MEAN, IMAGENET_STD
from fourfold.specialists.protocol import (
    Facts,
    Specialist,
    SpecialistConfig,
    SpecialistNetwork,
    mirrored_boxes,
)
from fourfold.specialists.surveys import require_torchvision, survey_boxes

if TYPE_CHECKING:
    from torchvision.models.detection import FCOS, FasterRCNN

STRIDES = (4, 8)  # pixels per cell of the two levels of the pyramid
ANCHORS = ((1 / 8, 3 / 16, 1 / 4), (3 / 8, 1 / 2, 3 / 4))  # sides of Faster R-CNN's anchors by level, as shares of the image
RATIOS = (0.5, 1.0, 2.0)  # heights over widths of these anchors


class DetectorConfig(SpecialistConfig):
    """Size, training and decoding of a detector."""

    widths: tuple[int, int, int] = (24, 48, 96)  # channels of the backbone at 1/2, 1/4 and 1/8 of the size
    blocks: tuple[int, int, int] = (1, 1, 2)  # residual blocks at each
    pyramid_width: int = Field(64, ge=32, multiple_of=32)  # channels of the feature pyramid; norms of FCOS have 32 groups
    head_convolutions: int = Field(2, ge=1, le=4)  # in each branch of the one-stage head (4 in the paper)
    head_width: int = Field(128, ge=8)  # hidden units of the second stage (1,024 in the paper)
    min_score: float = Field(0.05, ge=0, le=1)  # of a predicted box
    max_overlap: float = Field(0.5, gt=0, le=1)  # IoU of two boxes of a class; of more, the weaker box is dropped
    max_boxes: int = Field(50, ge=1)  # of an image


class Pyramid(nn.Module):
    """Feature maps at 1/4 and 1/8 of the size, of equal width (feature pyramid networks, arXiv 1612.03144)."""

    def __init__(self, config: DetectorConfig) -> None:
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
        self.out_channels = config.pyramid_width
        self.encoder = Encoder(config.widths, config.blocks)
        self.pyramid = FeaturePyramidNetwork(list(config.widths[1:]), config.pyramid_width)

    def forward(self, pixels_BCHW: Tensor) -> "OrderedDict[str, Tensor]":
        """Return the maps by name, the finer one first, of normalized pixels."""
        _, middle, coarse = self.encoder(pixels_BCHW)
        return self.pyramid(OrderedDict([("0", middle), ("1", coarse)]))


class BoxDetector(SpecialistNetwork):
    """A detector of torchvision between images and labels in the format of the shards."""

    def __init__(self, detector: "FasterRCNN | FCOS", classes: list[str], first_label: int, max_boxes: int) -> None:
        """Wrap a detector.

        Args:
            detector: the detector.
            classes: names of the object classes.
            first_label: the label of the first class; 1 where 0 is the background.
            max_boxes: of an image.
        """
        super().__init__()
        self.detector, self.classes, self.first_label, self.max_boxes = detector, classes, first_label, max_boxes

    def losses(self, rgb_BHWC: Tensor, values: Any) -> dict[str, Tensor]:
        """Return the losses of the detector; `values` are B values of `det`. Empty boxes are left out."""
        return self.detector(_images(rgb_BHWC), [self.target(value, rgb_BHWC) for value in values])

    def target(self, value: dict[str, Any], rgb_BHWC: Tensor) -> dict[str, Tensor]:
        """Return the boxes (N, 4) in pixels and the labels (N,) of one image."""
        height, width = rgb_BHWC.shape[1:3]
        scale_4 = torch.tensor([width, height, width, height], dtype=torch.float32)
        boxes_N4 = torch.tensor([found["box"] for found in value["instances"]], dtype=torch.float32).reshape(-1, 4) * scale_4
        labels_N = torch.tensor([self.classes.index(found["class_name"]) for found in value["instances"]], dtype=torch.int64)
        is_real_N = (boxes_N4[:, 2:] > boxes_N4[:, :2]).all(dim=1)
        found = {"boxes": boxes_N4[is_real_N], "labels": labels_N[is_real_N] + self.first_label}
        return {name: tensor.to(rgb_BHWC.device) for name, tensor in found.items()}

    def predict(self, rgb_BHWC: Tensor) -> list[dict[str, Any]]:
        """Return B values of `det`, best boxes first."""
        height, width = rgb_BHWC.shape[1:3]
        scale_4 = torch.tensor([width, height, width, height], dtype=torch.float32)
        found = []
        for result in self.detector(_images(rgb_BHWC)):
            boxes_N4, scores_N = result["boxes"].cpu() / scale_4, result["scores"].tolist()
            names = [self.classes[label - self.first_label] for label in result["labels"].tolist()]
            found.append(boxes_of(boxes_N4.tolist(), names, scores_N, self.max_boxes))
        return found


def build_faster_rcnn(config: DetectorConfig, facts: Facts) -> BoxDetector:
    """Return an untrained Faster R-CNN with a feature pyramid."""
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign

    classes, side = facts["classes"], facts["side"]
    sizes = tuple(tuple(max(1, round(share * side)) for share in level) for level in ANCHORS)
    pool_side = 5  # cells; 7 in the paper, for larger images
    detector = FasterRCNN(
        Pyramid(config),
        num_classes=None,
        **_image_settings(side),
        rpn_anchor_generator=AnchorGenerator(sizes, (RATIOS,) * len(sizes)),
        rpn_pre_nms_top_n_train=200,
        rpn_pre_nms_top_n_test=100,
        rpn_post_nms_top_n_train=100,
        rpn_post_nms_top_n_test=50,
        rpn_batch_size_per_image=64,
        # eq. 1 of arXiv 1612.03144 for small images: boxes of at least half of the image belong to the coarser level
        box_roi_pool=MultiScaleRoIAlign(["0", "1"], pool_side, sampling_ratio=2, canonical_scale=side, canonical_level=4),
        box_head=TwoMLPHead(config.pyramid_width * pool_side**2, config.head_width),
        box_predictor=_predictor(config.head_width, len(classes) + 1),
        box_batch_size_per_image=32,
        box_score_thresh=config.min_score,
        box_nms_thresh=config.max_overlap,
        box_detections_per_img=config.max_boxes,
    )
    return BoxDetector(detector, classes, first_label=1, max_boxes=config.max_boxes)


def build_fcos(config: DetectorConfig, facts: Facts) -> BoxDetector:
    """Return an untrained FCOS (arXiv 1904.01355) with two levels."""
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.fcos import FCOSHead

    detector = FCOS(
        Pyramid(config),
        num_classes=len(facts["classes"]),
        **_image_settings(facts["side"]),
        anchor_generator=AnchorGenerator(tuple((stride,) for stride in STRIDES), ((1.0,),) * len(STRIDES)),
        head=FCOSHead(config.pyramid_width, 1, len(facts["classes"]), config.head_convolutions),
        score_thresh=config.min_score,
        nms_thresh=config.max_overlap,
        detections_per_img=config.max_boxes,
    )
    return BoxDetector(detector, facts["classes"], first_label=0, max_boxes=config.max_boxes)


def _predictor(width: int, num_classes: int) -> nn.Module:
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

    return FastRCNNPredictor(width, num_classes)


def _image_settings(side: int) -> dict[str, Any]:
    # torchvision's models enlarge images to 800 pixels; these keep the size that the other models see
    return {"min_size": side, "max_size": 10 * side, "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}


def _images(rgb_BHWC: Tensor) -> list[Tensor]:
    return list(rgb_BHWC.movedim(-1, 1).float() / 255)


DETECTORS = (
    Specialist(
        name="faster_rcnn",
        title="Faster R-CNN",
        target="det",
        source="arXiv 1506.01497",
        config_class=DetectorConfig,
        survey=survey_boxes,
        build=build_faster_rcnn,
        mirror=mirrored_boxes,
        require=require_torchvision,
    ),
    Specialist(
        name="fcos",
        title="FCOS",
        target="det",
        source="arXiv 1904.01355",
        config_class=DetectorConfig,
        survey=survey_boxes,
        build=build_fcos,
        mirror=mirrored_boxes,
        require=require_torchvision,
    ),
)
