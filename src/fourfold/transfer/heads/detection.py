"""Boxes: a simple feature pyramid (ViTDet, arXiv 2203.16527, section 3) and the Faster R-CNN head of torchvision.

4M-21 has a Cascade Mask R-CNN on this pyramid. torchvision has the anchors, the matching, the losses, the decoding and the
suppression. Coordinates are those of an image in which a cell of the network's map has 16 pixels, whatever the real size is, so
that anchors fit the pyramid.
"""

# B batch, D width of the network, C channels of the pyramid, N boxes, h w rows and columns of the network's map

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fourfold.labelers.extras import require_package
from fourfold.transfer.head_sizes import BoxHeadConfig, HeadsConfig
from fourfold.transfer.tasks import ExampleSource

CELL = 16  # pixels of a cell of the network's map
STRIDES = (4, 8, 16, 32)  # pixels of a cell of each level
RATIOS = (0.5, 1.0, 2.0)  # heights over widths of anchors
Boxes = dict[str, Any]  # {"instances": [{"box": [xmin, ymin, xmax, ymax], "class_name", "score"}]}, coordinates from 0 to 1


class SimplePyramid(nn.Module):
    """One map → maps of four sizes and equal width, without lateral connections."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        half = max(1, width // 2)
        finest = (nn.ConvTranspose2d(width, half, 2, 2), channel_norm(half), nn.GELU(), nn.ConvTranspose2d(half, half, 2, 2))
        steps: list[tuple[tuple[nn.Module, ...], int]] = [
            (finest, half),
            ((nn.ConvTranspose2d(width, half, 2, 2),), half),
            ((), width),
            ((nn.MaxPool2d(2, ceil_mode=True),), width),
        ]
        self.levels = nn.ModuleList(nn.Sequential(*change, *same_width(inputs, channels)) for change, inputs in steps)

    def forward(self, x_BDHW: Tensor) -> "OrderedDict[str, Tensor]":
        """Return maps (B, C, ·, ·) of 4, 2, 1 and 1/2 times the rows and columns, by name."""
        return OrderedDict((str(index), level(x_BDHW)) for index, level in enumerate(self.levels))


def same_width(inputs: int, channels: int) -> list[nn.Module]:
    """Return the layers behind each change of size: 1 × 1 and 3 × 3 convolutions with layer norms."""
    first, second = nn.Conv2d(inputs, channels, 1, bias=False), nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    return [first, channel_norm(channels), second, channel_norm(channels)]


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each cell."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return super().forward(x_BCHW.movedim(1, -1)).movedim(-1, 1)


def channel_norm(channels: int) -> ChannelNorm:
    """Return a layer norm with the epsilon of ViTDet."""
    return ChannelNorm(channels, eps=1e-6)


@dataclass(frozen=True)
class BoxHead:
    """Predicts boxes of some classes; labels are `Boxes`, and boxes of other classes or without area do not count."""

    classes: tuple[str, ...]

    def require(self) -> None:
        """Raise ValueError when torchvision is not installed."""
        require_package("torchvision", "hub")

    def build(self, width: int, config: HeadsConfig, labeled: ExampleSource) -> "BoxModule":
        """Return the module of this head; see `fourfold.transfer.tasks.Head`."""
        return BoxModule(width, self.classes, config.boxes)


class BoxModule(nn.Module):
    """Pyramid, region proposals, and the second stage."""

    num_maps = 1

    def __init__(self, width: int, classes: tuple[str, ...], config: BoxHeadConfig) -> None:
        super().__init__()
        self.classes, self.max_boxes = classes, config.max_boxes
        self.pyramid = SimplePyramid(width, config.width)
        self.proposals, self.boxes = torchvision_heads(len(classes) + 1, config)

    def loss(self, maps: list[Tensor], labels: Sequence[Boxes]) -> Tensor:
        """Return the sum of the four losses of Faster R-CNN (arXiv 1506.01497, eq. 1; arXiv 1504.08083, eq. 1)."""
        map_BDHW = maps[-1].float()
        with torch.autocast(map_BDHW.device.type, enabled=False):  # boxes need all digits of their coordinates
            images, features = self._features(map_BDHW)
            targets = [self.target(boxes, images.image_sizes[0], map_BDHW.device) for boxes in labels]
            found, of_proposals = self.proposals(images, features, targets)
            _, of_boxes = self.boxes(features, found, images.image_sizes, targets)
        return torch.stack([*of_proposals.values(), *of_boxes.values()]).sum()

    def predict(self, maps: list[Tensor], size: tuple[int, int]) -> list[Boxes]:
        """Return the boxes of each image, best first."""
        images, features = self._features(maps[-1])
        proposals, _ = self.proposals(images, features, None)
        found, _ = self.boxes(features, proposals, images.image_sizes, None)
        height, width = images.image_sizes[0]
        scale_4 = torch.tensor([width, height, width, height])
        return [self._instances(each, scale_4) for each in found]

    def target(self, boxes: Boxes, size: tuple[int, int], device: torch.device) -> dict[str, Tensor]:
        """Return boxes (N, 4) in pixels of an image of (height, width), and labels from 1 (N,)."""
        known = [one for one in boxes["instances"] if one["class_name"] in self.classes]
        scale_4 = torch.tensor([size[1], size[0], size[1], size[0]], dtype=torch.float32)
        boxes_N4 = torch.tensor([one["box"] for one in known], dtype=torch.float32).reshape(-1, 4) * scale_4
        labels_N = torch.tensor([self.classes.index(one["class_name"]) + 1 for one in known], dtype=torch.int64)
        has_area_N = (boxes_N4[:, 2:] > boxes_N4[:, :2]).all(dim=1)
        return {"boxes": boxes_N4[has_area_N].to(device), "labels": labels_N[has_area_N].to(device)}

    def _features(self, map_BDHW: Tensor) -> tuple[Any, "OrderedDict[str, Tensor]"]:
        from torchvision.models.detection.image_list import ImageList

        batch, _, rows, columns = map_BDHW.shape
        size = (CELL * rows, CELL * columns)
        shape = map_BDHW.new_empty(1).expand(batch, 3, *size)  # only its size is read
        return ImageList(shape, [size] * batch), self.pyramid(map_BDHW)

    def _instances(self, found: dict[str, Tensor], scale_4: Tensor) -> Boxes:
        boxes_N4 = (found["boxes"].detach().cpu() / scale_4).clamp(0, 1).tolist()
        columns = zip(boxes_N4, found["labels"].tolist(), found["scores"].tolist(), strict=True)
        return {"instances": [{"box": box, "class_name": self.classes[i - 1], "score": score} for box, i, score in columns]}


def torchvision_heads(num_classes: int, config: BoxHeadConfig) -> tuple[nn.Module, nn.Module]:
    """Return the region proposal network and the second stage of Faster R-CNN; the background is a class.

    Thresholds are torchvision's defaults, which are those of the papers.
    """
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.roi_heads import RoIHeads
    from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
    from torchvision.ops import MultiScaleRoIAlign

    sizes = tuple((round(config.anchor_cells * stride),) for stride in STRIDES)
    anchors = AnchorGenerator(sizes, (RATIOS,) * len(sizes))
    number = {"training": config.proposals, "testing": config.proposals}
    head = RPNHead(config.width, anchors.num_anchors_per_location()[0])
    proposals = RegionProposalNetwork(anchors, head, 0.7, 0.3, 256, 0.5, number, number, 0.7)
    names = [str(index) for index in range(len(STRIDES))]
    pool = MultiScaleRoIAlign(names, config.pool_side, sampling_ratio=2)
    boxes = RoIHeads(
        pool,
        TwoMLPHead(config.width * config.pool_side**2, config.hidden),
        FastRCNNPredictor(config.hidden, num_classes),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=config.sampled_boxes,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=config.min_score,
        nms_thresh=config.max_overlap,
        detections_per_img=config.max_boxes,
    )
    return proposals, boxes
