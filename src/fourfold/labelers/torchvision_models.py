"""Labelers of kind `torchvision`: detectors and segmentations with weights as safetensors (extra `fourfold[hub]`).

torchvision's own files of weights are pickles. They are converted once, outside of a run (docs/guides/add-a-labeler.md).
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor

from fourfold.configuration import Config
from fourfold.digests import sha256_file
from fourfold.labelers.boxes import boxes_of
from fourfold.labelers.certainty import class_certainty
from fourfold.labelers.class_names import NO_CLASS, box_table, coco_name, table_of_names
from fourfold.labelers.extras import installed_version, require_package
from fourfold.labelers.protocol import Batch, Labeler, LabelingContext, Rated
from fourfold.labelers.registry import register as register_labeler
from fourfold.modalities import IMAGENET_MEAN, IMAGENET_STD
from fourfold.modalities.class_table import ClassTable

# B images, N boxes, K classes


class TorchvisionConfig(Config):
    """Which model a labeler uses, and how it is run."""

    model: str = Field(min_length=1)  # as `torchvision.models.list_models()` names it, e.g. fasterrcnn_resnet50_fpn_v2
    weights: str = Field(min_length=1)  # a safetensors file with the model's state dictionary
    classes: tuple[str, ...] | None = None  # names by id; None: those of torchvision's weights for this model
    license: str | None = None  # of the weights
    batch_size: int = Field(4, ge=1)  # images in one forward pass


class TorchvisionBoxesConfig(TorchvisionConfig):
    """Settings of detectors."""

    threshold: float = Field(0.5, ge=0, le=1)  # boxes with a lower score are dropped
    max_boxes: int = Field(100, ge=1)  # of an image, those with the highest scores


class TorchvisionSegmentationConfig(TorchvisionConfig):
    """Settings of segmentations."""

    side: int = Field(520, ge=32)  # pixels, to which the shorter side of an image is resized
    things: tuple[str, ...] | None = None  # classes of countable objects; None: those that COCO has as objects


class TorchvisionLabeler(Labeler):
    """Loads a model when the first image is labeled."""

    kind = "torchvision"
    config: TorchvisionConfig

    def __init__(self, config: Any = None, context: LabelingContext | None = None) -> None:
        super().__init__(config, context)
        class_names(self.config)  # an unknown model is an error before any work starts
        self.require(self.config)

    @classmethod
    def require(cls, config: TorchvisionConfig) -> None:
        """Raise ValueError when the extra or the file of the weights is missing."""
        require_package("torchvision", "hub")
        if not Path(config.weights).expanduser().is_file() or not config.weights.endswith(".safetensors"):
            raise ValueError(
                f"weights is {config.weights!r}; it must be an existing file .safetensors. torchvision's files are "
                "pickles, which are not read: convert them once (docs/guides/add-a-labeler.md)."
            )

    def origin(self) -> dict[str, Any]:
        """Return model, license and digest of the weights."""
        return {
            "kind": self.kind,
            "model": self.config.model,
            "license": self.config.license,
            "sha256": sha256_file(Path(self.config.weights).expanduser()),
            "software": f"torchvision {installed_version('torchvision')}",
        }

    @cached_property
    def model(self) -> torch.nn.Module:
        """The network, in evaluation mode.

        Raises:
            ValueError: the weights do not fit the model.
        """
        from torchvision.models import get_model

        number = len(class_names(self.config))
        model = get_model(self.config.model, weights=None, weights_backbone=None, num_classes=number)
        tensors = load_file(Path(self.config.weights).expanduser())
        auxiliary = {name for name in tensors if name.startswith("aux_classifier.")}  # used in training only
        try:
            model.load_state_dict({name: tensor for name, tensor in tensors.items() if name not in auxiliary})
        except RuntimeError as error:
            line = str(error).splitlines()[-1].strip()
            raise ValueError(
                f"{self.config.weights} does not fit {self.config.model!r} with {number} classes: {line}"
            ) from error
        return model.eval()

    def chunks(self, rgb_BHW3: Any) -> list[Tensor]:
        """Return the images of a batch as uint8 (b, 3, H, W), as many at once as the settings allow."""
        return list(torch.from_numpy(np.stack(rgb_BHW3)).permute(0, 3, 1, 2).split(self.config.batch_size))


class TorchvisionBoxes(TorchvisionLabeler):
    """Labels `det` by Faster R-CNN, Mask R-CNN, RetinaNet, FCOS, SSD."""

    name, title, modality = "torchvision_det", "Boxes by a detector of torchvision", "det"
    config_class = TorchvisionBoxesConfig
    config: TorchvisionBoxesConfig

    @classmethod
    def class_table(cls, config: TorchvisionBoxesConfig) -> ClassTable:
        """Return the names that boxes may have; each is a thing."""
        return box_table([name for name in class_names(config) if name != "__background__"])

    def label(self, batch: Batch, output: Any = None) -> list[dict[str, Any]]:
        """Return `{"instances": [{"box": [xmin, ymin, xmax, ymax] in 0-1, "class_name", "score"}, ...]}`, best first."""
        names, found = class_names(self.config), []
        with torch.inference_mode():
            for images_B3HW in self.chunks(batch["rgb"]):
                scale_4 = torch.tensor(images_B3HW.shape[:1:-1]).repeat(2)  # W, H, W, H
                for result in self.model(list(images_B3HW.float() / 255)):
                    is_kept_N = (result["scores"] >= self.config.threshold) & torch.tensor(
                        [names[i] not in (NO_CLASS, "__background__") for i in result["labels"].tolist()], dtype=torch.bool
                    )
                    kept = [names[i] for i in result["labels"][is_kept_N].tolist()]
                    boxes = (result["boxes"][is_kept_N] / scale_4).tolist()
                    found.append(boxes_of(boxes, kept, result["scores"][is_kept_N].tolist(), self.config.max_boxes))
        return found


class TorchvisionSegmentation(TorchvisionLabeler):
    """Labels `semseg` by DeepLabv3, FCN, LR-ASPP; the confidence is the mean probability of the classes."""

    name, title, modality = "torchvision_semseg", "Segmentation by a model of torchvision", "semseg"
    config_class = TorchvisionSegmentationConfig
    rated = True
    config: TorchvisionSegmentationConfig

    @classmethod
    def class_table(cls, config: TorchvisionSegmentationConfig) -> ClassTable:
        """Return the classes of the model, in COCO's spelling."""
        names = [coco_name(name).strip("_") for name in class_names(config)]
        return table_of_names(names, config.things)

    def label(self, batch: Batch, output: Any = None) -> list[Rated]:
        """Return uint8 (H, W), class ids."""
        found: list[Rated] = []
        with torch.inference_mode():
            for images_B3HW in self.chunks(batch["rgb"]):
                logits_BKHW = self.predict(images_B3HW)
                ids_BHW = logits_BKHW.argmax(1).to(torch.uint8).numpy()
                sure_B = [class_certainty(logits_KHW, are_logits=True) for logits_KHW in logits_BKHW]
                found += [Rated(ids_HW, sure) for ids_HW, sure in zip(ids_BHW, sure_B, strict=True)]
        return found

    def predict(self, images_B3HW: Tensor) -> Tensor:
        """Return logits (B, K, H, W) at the size of the images uint8, which are prepared as torchvision's presets do."""
        from torchvision.transforms import functional

        size = images_B3HW.shape[-2:]
        resized = functional.resize(images_B3HW, [self.config.side], antialias=True).float() / 255
        logits = self.model(functional.normalize(resized, list(IMAGENET_MEAN), list(IMAGENET_STD)))["out"]
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def class_names(config: TorchvisionConfig) -> tuple[str, ...]:
    """Return the names of the classes of a model by id.

    Raises:
        ValueError: the extra is not installed, torchvision has no such model, or has no names for it.
    """
    require_package("torchvision", "hub")
    if config.classes is not None:
        return config.classes
    from torchvision.models import get_model_weights

    try:
        known = get_model_weights(config.model)
    except ValueError as error:
        raise ValueError(
            f"torchvision has no model {config.model!r}. Choose one of torchvision.models.list_models()."
        ) from error
    names = next((weights.meta.get("categories") for weights in known), None)
    if not names:
        raise ValueError(f"torchvision has no names for the classes of {config.model!r}. List them as `classes`.")
    return tuple(names)


def register() -> None:
    """Register the labelers of this kind."""
    for labeler in (TorchvisionBoxes, TorchvisionSegmentation):
        register_labeler(labeler)
