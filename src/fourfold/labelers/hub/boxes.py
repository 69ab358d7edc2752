"""Boxes by checkpoints of object detection: DETR, Deformable DETR, RT-DETR, D-FINE, YOLOS, and Grounding DINO with words.

The names of the boxes come from the checkpoint's `id2label`; a model that detects what words name gets them from `classes`.
"""

import inspect
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from fourfold.labelers.boxes import boxes_of
from fourfold.labelers.class_names import NO_CLASS, box_table
from fourfold.labelers.hub.checkpoints import HubConfig, open_checkpoint
from fourfold.labelers.hub.running import TransformersLabeler, sizes_of
from fourfold.labelers.protocol import Batch
from fourfold.modalities.class_table import ClassTable


class BoxesConfig(HubConfig):
    """Settings of object detection."""

    threshold: float = Field(0.5, ge=0, le=1)  # boxes with a lower score are dropped
    text_threshold: float = Field(0.25, ge=0, le=1)  # of the words of a box, for models that read `classes`
    classes: tuple[str, ...] = ()  # what is looked for, in words; only for models that read them
    max_boxes: int = Field(100, ge=1)  # of an image, those with the highest scores


class TransformersBoxes(TransformersLabeler):
    """Labels `det`."""

    name, title, modality = "transformers_det", "Boxes by a checkpoint of the hub", "det"
    config_class = BoxesConfig
    config: BoxesConfig

    @classmethod
    def class_table(cls, config: BoxesConfig) -> ClassTable:
        """Return the names that boxes may have; each is a thing.

        Raises:
            ValueError: `classes` is missing for a model that reads words, or given for another one.
        """
        checkpoint = open_checkpoint(config)
        if _reads_words(checkpoint.config) and not config.classes:
            raise ValueError(f"Model {config.model!r} looks for what words name. List them as `classes`.")
        if config.classes and not _reads_words(checkpoint.config):
            raise ValueError(f"Model {config.model!r} has fixed classes. Remove `classes`.")
        return box_table(config.classes or checkpoint.class_names())

    @property
    def reads_words(self) -> bool:
        """Whether the model detects what words name (zero-shot)."""
        return _reads_words(self.checkpoint.config)

    def processor_class(self) -> Any:  # noqa: D102
        from transformers import AutoImageProcessor, AutoProcessor

        return AutoProcessor if self.reads_words else AutoImageProcessor

    def model_class(self) -> Any:  # noqa: D102
        from transformers import AutoModelForObjectDetection, AutoModelForZeroShotObjectDetection

        return AutoModelForZeroShotObjectDetection if self.reads_words else AutoModelForObjectDetection

    def label(self, batch: Batch, output: Any = None) -> list[dict[str, Any]]:
        """Return `{"instances": [{"box": [xmin, ymin, xmax, ymax] in 0-1, "class_name", "score"}, ...]}`, best first."""
        found = []
        with torch.inference_mode():
            for images in self.chunks(batch["rgb"]):
                results = self._by_words(images) if self.reads_words else self._by_id(images)
                for image, (boxes_N4, names_N, scores_N) in zip(images, results, strict=True):
                    scale_4 = torch.tensor([image.width, image.height, image.width, image.height])
                    boxes = (boxes_N4.float().cpu() / scale_4).tolist()
                    found.append(boxes_of(boxes, names_N, scores_N.tolist(), self.config.max_boxes))
        return found

    def _by_id(self, images: list[Any]) -> list[tuple[Tensor, list[str], Tensor]]:
        """Return boxes in pixels, names and scores of each image, of a model with fixed classes."""
        outputs = self.model(**self.inputs(images=images))
        processed = self.processor.post_process_object_detection(outputs, self.config.threshold, sizes_of(images))
        names, results = self.checkpoint.class_names(), []
        for result in processed:
            is_class_N = torch.tensor([not names[i].startswith(NO_CLASS) for i in result["labels"].tolist()], dtype=torch.bool)
            kept = [names[i] for i in result["labels"][is_class_N].tolist()]
            results.append((result["boxes"][is_class_N], kept, result["scores"][is_class_N]))
        return results

    def _by_words(self, images: list[Any]) -> list[tuple[Tensor, list[str], Tensor]]:
        """Return boxes in pixels, names and scores of each image, of a model that reads words."""
        words = [list(self.config.classes)] * len(images)
        inputs = self.inputs(images=images, text=words, **({"padding": True} if len(images) > 1 else {}))
        outputs, process = self.model(**inputs), self.processor.post_process_grounded_object_detection
        arguments = {"input_ids": inputs.get("input_ids"), "text_threshold": self.config.text_threshold, "text_labels": words}
        accepted = {name: value for name, value in arguments.items() if name in inspect.signature(process).parameters}
        results = []
        for result in process(outputs, threshold=self.config.threshold, target_sizes=sizes_of(images), **accepted):
            names = [_matching(name, self.config.classes) for name in result["text_labels"]]
            kept_N = torch.tensor([name is not None for name in names], dtype=torch.bool)
            results.append((result["boxes"][kept_N], [name for name in names if name], result["scores"][kept_N]))
        return results


def _reads_words(config: Any) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING

    return type(config) in MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING


def _matching(found: str | None, classes: tuple[str, ...]) -> str | None:
    """Return the class that the words of a box name; None when they name none, or several."""
    if found in classes:
        return found
    named = [name for name in classes if found and name in found]
    return named[0] if len(named) == 1 else None
