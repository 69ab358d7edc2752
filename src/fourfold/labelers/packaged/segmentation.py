"""Segmentation into the 20 object classes of PASCAL VOC and background, by DeepLabv3 on MobileNetV2 (arXiv 1706.05587)."""

from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from fourfold.labelers.certainty import class_certainty
from fourfold.labelers.class_names import coco_name, table_of_names
from fourfold.labelers.packaged.labeler import GraphLabeler, with_longer_side
from fourfold.labelers.packaged.networks import DEEPLAB, PackagedConfig
from fourfold.labelers.protocol import Batch, Rated
from fourfold.modalities.class_table import ClassTable

SIDE = 513  # pixels, of the network's input; smaller images are padded
# In the order of the ids. COCO's spelling, so that boxes and segments of a class have one name.
CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class DeepLabConfig(PackagedConfig):
    """Settings of the segmentation."""

    side: int = Field(SIDE, ge=33, le=SIDE)  # pixels, to which the longer side of an image is resized


class PackagedSegmentation(GraphLabeler):
    """Labels `semseg`; the confidence is the mean probability of the classes."""

    name, title, modality = "packaged_semseg", "Segmentation by DeepLabv3 (PASCAL VOC)", "semseg"
    networks = (DEEPLAB,)
    config_class = DeepLabConfig
    rated = True
    config: DeepLabConfig

    @classmethod
    def class_table(cls, config: Any) -> ClassTable:
        """Return PASCAL VOC's classes."""
        return table_of_names([coco_name(name) for name in CLASSES])

    @cached_property
    def scores(self) -> str:
        """The name of the scores of all classes in the graph: what the most probable class is chosen from."""
        return next(node.inputs[0] for node in self.graph.nodes.values() if node.operation == "ArgMax")

    def label(self, batch: Batch, output: Any = None) -> list[Rated]:
        """Return uint8 (H, W), class ids."""
        return [self._segment(Image.fromarray(np.asarray(rgb_HW3))) for rgb_HW3 in batch["rgb"]]

    def _segment(self, image: Image.Image) -> Rated:
        resized = with_longer_side(image, self.config.side)
        found = self.predict(np.asarray(resized))
        if resized.size == image.size:
            return found
        return Rated(np.asarray(Image.fromarray(found.value).resize(image.size, Image.Resampling.NEAREST)), found.confidence)

    def predict(self, rgb_HW3: np.ndarray) -> Rated:
        """Return uint8 (H, W), class ids of an image of at most 513 × 513 pixels."""
        pixels_1HW3 = torch.from_numpy(np.array(rgb_HW3))[None]
        ids_1HW, scores_1hwK = self.graph.run({"ImageTensor": pixels_1HW3}, ["SemanticPredictions", self.scores])
        height, width = ids_1HW.shape[1:]  # without what was padded
        scores_KHW = scores_1hwK[0, :height, :width].permute(2, 0, 1)
        return Rated(ids_1HW[0].to(torch.uint8).numpy(), class_certainty(scores_KHW, are_logits=True))
