"""Semantic segmentation by checkpoints of the hub: SegFormer, UperNet, Mask2Former, MaskFormer, OneFormer, BEiT, DPT, ...

The class table comes from the checkpoint's `id2label`.
"""

import inspect
from typing import Any

import numpy as np
import torch

from fourfold.labelers.certainty import class_certainty
from fourfold.labelers.class_names import table_of_names
from fourfold.labelers.hub.checkpoints import HubConfig, open_checkpoint
from fourfold.labelers.hub.running import TransformersLabeler, sizes_of
from fourfold.labelers.protocol import Batch, Rated
from fourfold.modalities.class_table import ClassTable

SCORES = "return_segmentation_scores"  # of post-processing; not all families have it


class SegmentationConfig(HubConfig):
    """Settings of semantic segmentation."""

    things: tuple[str, ...] | None = None  # classes of countable objects; None: those that COCO has as objects
    background: tuple[str, ...] = (
        "sky",
        "sky-other-merged",
    )  # classes without a surface at a finite distance, where they exist


class TransformersSegmentation(TransformersLabeler):
    """Labels `semseg`; the confidence is the mean probability of the classes."""

    name, title, modality = "transformers_semseg", "Segmentation by a checkpoint of the hub", "semseg"
    config_class = SegmentationConfig
    rated = True
    config: SegmentationConfig

    @classmethod
    def class_table(cls, config: SegmentationConfig) -> ClassTable:
        """Return the classes of the checkpoint."""
        return table_of_names(open_checkpoint(config).class_names(), config.things, config.background)

    @property
    def is_one_former(self) -> bool:
        """Whether the model also reads a text that names the task."""
        return self.checkpoint.config.model_type == "oneformer"

    def processor_class(self) -> Any:  # noqa: D102
        from transformers import AutoImageProcessor, AutoProcessor

        return AutoProcessor if self.is_one_former else AutoImageProcessor

    def processor_options(self) -> dict[str, Any]:
        """Leave out OneFormer's file of class names: only its training reads it, and it is in another repository of the hub."""
        return {"class_info_file": None} if self.is_one_former else {}

    def model_class(self) -> Any:  # noqa: D102
        from transformers import AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

        return AutoModelForUniversalSegmentation if self.has_masks else AutoModelForSemanticSegmentation

    @property
    def has_masks(self) -> bool:
        """Whether the model gives masks with classes, not a score of each class for each pixel."""
        from transformers.models.auto.modeling_auto import MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING

        return type(self.checkpoint.config) in MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray | Rated]:
        """Return uint8 (H, W), class ids, rated where the library gives scores."""
        found: list[np.ndarray | Rated] = []
        with torch.inference_mode():
            for images in self.chunks(batch["rgb"]):
                task = {"task_inputs": ["semantic"] * len(images)} if self.is_one_former else {}
                outputs = self.model(**self.inputs(images=images, **task))
                found += self._processed(outputs, sizes_of(images))
        return found

    def _processed(self, outputs: Any, sizes: list[tuple[int, int]]) -> list[np.ndarray | Rated]:
        process = getattr(self.processor, "image_processor", self.processor).post_process_semantic_segmentation
        if SCORES not in inspect.signature(process).parameters:
            return [_ids(ids_HW) for ids_HW in process(outputs, target_sizes=sizes)]
        results = process(outputs, target_sizes=sizes, **{SCORES: True})
        return [
            Rated(_ids(one.segmentation), class_certainty(one.segmentation_scores, are_logits=not self.has_masks))
            for one in results
        ]


def _ids(ids_HW: torch.Tensor) -> np.ndarray:
    return ids_HW.cpu().numpy().astype(np.uint8)
