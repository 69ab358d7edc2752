"""Boxes of COCO's 80 object classes by SSDLite on MobileNetV2 (arXiv 1801.04381, section 6.2)."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from fourfold.labelers.boxes import boxes_of, non_maximum_suppression
from fourfold.labelers.class_names import NO_CLASS, box_table
from fourfold.labelers.packaged.graphs import Graph
from fourfold.labelers.packaged.labeler import PackagedLabeler
from fourfold.labelers.packaged.networks import SSDLITE, PackagedConfig
from fourfold.labelers.protocol import Batch
from fourfold.modalities.class_table import ClassTable

SIDE = 300  # pixels, of the network's input
INPUT, SCORES, BOXES = (
    "Preprocessor/map/TensorArrayStack/TensorArrayGatherV3",
    "Postprocessor/Slice",
    "Postprocessor/ExpandDims_1",
)
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


class SsdConfig(PackagedConfig):
    """Settings of the detector."""

    threshold: float = Field(0.4, ge=0, le=1)  # boxes with a lower score are dropped
    max_overlap: float = Field(
        0.5, ge=0, le=1
    )  # IoU of two boxes of a class above which the one with the lower score is dropped
    max_boxes: int = Field(100, ge=1)  # of an image, those with the highest scores
    batch_size: int = Field(8, ge=1)  # images in one forward pass


class PackagedBoxes(PackagedLabeler):
    """Labels `det`."""

    name, title, modality = "packaged_det", "Boxes by SSDLite (COCO)", "det"
    networks = (SSDLITE,)
    config_class = SsdConfig
    config: SsdConfig

    @classmethod
    def class_table(cls, config: Any) -> ClassTable:
        """Return COCO's object classes."""
        return box_table(CATEGORIES)

    @cached_property
    def graph(self) -> Graph:
        """The network."""
        return Graph.load(self.folders[0])

    def label(self, batch: Batch, output: Any = None) -> list[dict[str, Any]]:
        """Return `{"instances": [{"box": [xmin, ymin, xmax, ymax] in 0-1, "class_name", "score"}, ...]}`, best first."""
        found = []
        for start in range(0, len(batch["rgb"]), self.config.batch_size):
            scores_BNK, boxes_BN4 = self.predict(batch["rgb"][start : start + self.config.batch_size])
            found += [self._boxes(scores, boxes) for scores, boxes in zip(scores_BNK, boxes_BN4, strict=True)]
        return found

    def predict(self, rgb_BHW3: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return scores (B, 1917, 90) and boxes (B, 1917, 4), ymin, xmin, ymax, xmax in 0-1, of images uint8."""
        images = [Image.fromarray(np.asarray(rgb_HW3)).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for rgb_HW3 in rgb_BHW3]
        pixels_BHW3 = torch.from_numpy(np.stack([np.asarray(image, np.float32) for image in images]))
        scores, boxes = self.graph.run({INPUT: pixels_BHW3}, [SCORES, BOXES])
        return scores.numpy(), boxes.reshape(len(images), -1, 4).numpy()

    def _boxes(self, scores_NK: np.ndarray, boxes_N4: np.ndarray) -> dict[str, Any]:
        kept_boxes, names, scores = [], [], []
        for index in np.flatnonzero(scores_NK.max(0) >= self.config.threshold):
            likely_N = np.flatnonzero(scores_NK[:, index] >= self.config.threshold)
            chosen = non_maximum_suppression(boxes_N4[likely_N], scores_NK[likely_N, index], self.config.max_overlap)
            if (name := CATEGORIES[index]) == NO_CLASS:
                continue
            kept_boxes += boxes_N4[likely_N[chosen]][:, [1, 0, 3, 2]].tolist()
            scores += scores_NK[likely_N[chosen], index].tolist()
            names += [name] * len(chosen)
        return boxes_of(kept_boxes, names, scores, self.config.max_boxes)
