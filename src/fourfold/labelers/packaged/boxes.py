"""Boxes of COCO's 80 object classes by SSDLite on MobileNetV2 (arXiv 1801.04381, section 6.2), or by NanoDet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from fourfold.labelers.boxes import boxes_of, non_maximum_suppression
from fourfold.labelers.class_names import NO_CLASS, box_table
from fourfold.labelers.packaged.graphs import Graph
from fourfold.labelers.packaged.labeler import GraphLabeler
from fourfold.labelers.packaged.networks import NANODET, SSDLITE, Network, PackagedConfig
from fourfold.labelers.protocol import Batch
from fourfold.modalities.class_table import ClassTable

SIDE = 300  # pixels, of the input of SSDLite
INPUT, SCORES, BOXES = (
    "Preprocessor/map/TensorArrayStack/TensorArrayGatherV3",
    "Postprocessor/Slice",
    "Postprocessor/ExpandDims_1",
)
NANODET_SIDE = 416  # pixels
NANODET_MEAN_3 = np.array([103.53, 116.28, 123.675], np.float32)  # of ImageNet: blue, green, red
NANODET_DEVIATION_3 = np.array([57.375, 57.12, 58.395], np.float32)
NANODET_STRIDES, NANODET_BINS = (8, 16, 32), 11  # pixels between the cells of each grid; steps of a distance
NANODET_INPUT = "input_1"
NANODET_OUTPUTS = ("Identity", "Identity_1", "Identity_2", "Identity_3", "Identity_4", "Identity_5")  # scores, then distances
# COCO's category ids 1 to 90; 10 of them were never used
CATEGORIES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", NO_CLASS, "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", NO_CLASS, "backpack", "umbrella", NO_CLASS, NO_CLASS, "handbag", "tie",
    "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard",
    "surfboard", "tennis racket", "bottle", NO_CLASS, "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana",
    "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", NO_CLASS, "dining table", NO_CLASS, NO_CLASS, "toilet", NO_CLASS, "tv", "laptop", "mouse",
    "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", NO_CLASS, "book", "clock",
    "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip


class DetectorConfig(PackagedConfig):
    """Settings of the detector."""

    network: Literal["ssdlite", "nanodet"] = "ssdlite"  # ssdlite is precise, nanodet finds more and makes more mistakes
    threshold: float = Field(0.4, ge=0, le=1)  # boxes with a lower score are dropped
    max_overlap: float = Field(
        0.5, ge=0, le=1
    )  # IoU of two boxes of a class above which the one with the lower score is dropped
    max_boxes: int = Field(100, ge=1)  # of an image, those with the highest scores
    batch_size: int = Field(8, ge=1)  # images in one forward pass


def ssdlite(graph: Graph, images: Sequence[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    """Return what SSDLite finds: scores (B, 1917, 90) of `CATEGORIES`, boxes (B, 1917, 4)."""
    pixels_BHW3 = torch.from_numpy(np.stack([_resized(image, SIDE) for image in images]))
    scores_BNK, boxes_BN14 = graph.run({INPUT: pixels_BHW3}, [SCORES, BOXES])
    return scores_BNK.numpy(), boxes_BN14.reshape(len(images), -1, 4).numpy()[..., [1, 0, 3, 2]]


def nanodet(graph: Graph, images: Sequence[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    """Return what NanoDet finds: scores (B, 3549, 80) of COCO's classes, boxes (B, 3549, 4).

    Each cell of three grids has the distances of the sides of a box from its center, as probabilities of `NANODET_BINS` steps
    of the grid (generalized focal loss, arXiv 2006.04388, section 3.2).
    """
    found = [_nanodet(graph, image) for image in images]  # the graph takes one image
    return np.stack([scores for scores, _ in found]), np.stack([boxes for _, boxes in found])


def _nanodet(graph: Graph, image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    bgr_HW3 = (_resized(image, NANODET_SIDE)[..., ::-1] - NANODET_MEAN_3) / NANODET_DEVIATION_3
    outputs = graph.run({NANODET_INPUT: torch.from_numpy(bgr_HW3).permute(2, 0, 1)[None]}, NANODET_OUTPUTS)
    num_grids, boxes = len(NANODET_STRIDES), []
    for bins_1NS, stride in zip(outputs[num_grids:], NANODET_STRIDES, strict=True):
        rows, columns = np.divmod(np.arange(bins_1NS.shape[1]), NANODET_SIDE // stride)
        centers_N2 = (np.stack([columns, rows], axis=1) + 0.5) * stride
        probable_N4S = bins_1NS[0].reshape(-1, 4, NANODET_BINS).softmax(-1)
        distances_N4 = (probable_N4S @ torch.arange(NANODET_BINS, dtype=torch.float32)).numpy() * stride
        boxes.append(np.concatenate([centers_N2 - distances_N4[:, :2], centers_N2 + distances_N4[:, 2:]], axis=1))
    return torch.cat(outputs[:num_grids], dim=1)[0].numpy(), np.concatenate(boxes) / NANODET_SIDE


def _resized(image: Image.Image, side: int) -> np.ndarray:
    """Return pixels 0-255, float32 (side, side, 3)."""
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), np.float32)


@dataclass(frozen=True)
class Detector:
    """A network, what it finds in images, and the names of its classes.

    `predict` returns scores (B, N, K) and boxes (B, N, 4): xmin, ymin, xmax, ymax, 0-1 in the image and somewhat beyond.
    """

    network: Network
    predict: Callable[[Graph, Sequence[Image.Image]], tuple[np.ndarray, np.ndarray]]
    classes: tuple[str, ...]


DETECTORS = {
    "ssdlite": Detector(SSDLITE, ssdlite, CATEGORIES),
    "nanodet": Detector(NANODET, nanodet, tuple(name for name in CATEGORIES if name != NO_CLASS)),
}


class PackagedBoxes(GraphLabeler):
    """Labels `det`."""

    name, title, modality = "packaged_det", "Boxes by SSDLite or NanoDet (COCO)", "det"
    config_class = DetectorConfig
    config: DetectorConfig

    @classmethod
    def networks_of(cls, config: DetectorConfig) -> tuple[Network, ...]:
        """Return the network that is chosen."""
        return (DETECTORS[config.network].network,)

    @classmethod
    def class_table(cls, config: Any) -> ClassTable:
        """Return COCO's object classes."""
        return box_table(CATEGORIES)

    def label(self, batch: Batch, output: Any = None) -> list[dict[str, Any]]:
        """Return `{"instances": [{"box": [xmin, ymin, xmax, ymax] in 0-1, "class_name", "score"}, ...]}`, best first."""
        detector, found = DETECTORS[self.config.network], []
        for start in range(0, len(batch["rgb"]), self.config.batch_size):
            chosen = batch["rgb"][start : start + self.config.batch_size]
            images = [Image.fromarray(np.asarray(rgb_HW3)) for rgb_HW3 in chosen]
            scores_BNK, boxes_BN4 = detector.predict(self.graph, images)
            found += [self._boxes(scores, boxes, detector) for scores, boxes in zip(scores_BNK, boxes_BN4, strict=True)]
        return found

    def _boxes(self, scores_NK: np.ndarray, boxes_N4: np.ndarray, detector: Detector) -> dict[str, Any]:
        kept_boxes, names, scores = [], [], []
        for index in np.flatnonzero(scores_NK.max(0) >= self.config.threshold):
            likely_N = np.flatnonzero(scores_NK[:, index] >= self.config.threshold)
            chosen = non_maximum_suppression(boxes_N4[likely_N], scores_NK[likely_N, index], self.config.max_overlap)
            if (name := detector.classes[index]) == NO_CLASS:
                continue
            kept_boxes += boxes_N4[likely_N[chosen]].tolist()
            scores += scores_NK[likely_N[chosen], index].tolist()
            names += [name] * len(chosen)
        return boxes_of(kept_boxes, names, scores, self.config.max_boxes)
