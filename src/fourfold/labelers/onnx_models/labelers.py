"""The labelers of kind `onnx`: depth, segmentation, boxes, features."""

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field

from fourfold.labelers.boxes import boxes_of, non_maximum_suppression
from fourfold.labelers.class_names import box_table, table_of_names
from fourfold.labelers.depths import DepthRange, meters_of_inverse, meters_of_metric
from fourfold.labelers.grids import regridded
from fourfold.labelers.onnx_models.sessions import InputConfig, OnnxConfig, OnnxLabeler, placement
from fourfold.labelers.protocol import Batch
from fourfold.modalities.class_table import ClassTable

# H, W pixels, h, w cells of an output, K classes, N boxes, C channels


class OnnxDepthConfig(DepthRange, OnnxConfig):
    """Settings of depth estimation; the output is (B, h, w) or (B, 1, h, w)."""

    output: Literal["metric", "inverse", "inverse_meters"] = "inverse"  # inverse: of unknown scale and shift, near is large


class OnnxDepth(OnnxLabeler):
    """Labels `depth`."""

    name, title, modality = "onnx_depth", "Depth by an ONNX file", "depth"
    config_class = OnnxDepthConfig
    config: OnnxDepthConfig

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return float16 (H, W), meters."""
        found = []
        for images, (raw, *_) in self.run(batch["rgb"]):
            for image, raw_hw in zip(images, raw, strict=True):
                raw_HW = at_image(np.squeeze(raw_hw)[None], image, self.config.input)[0]
                found.append(self._meters(raw_HW).astype(np.float16))
        return found

    def _meters(self, raw_HW: np.ndarray) -> np.ndarray:
        if self.config.output == "inverse":
            return meters_of_inverse(raw_HW, self.config.near, self.config.far)
        return meters_of_metric(raw_HW if self.config.output == "metric" else 1 / raw_HW.clip(1e-6))


class OnnxSegmentationConfig(OnnxConfig):
    """Settings of segmentation; the output is logits (B, K, h, w), or ids (B, h, w) or (B, 1, h, w)."""

    classes: tuple[str, ...] = Field(min_length=2)  # names by id
    things: tuple[str, ...] | None = None  # classes of countable objects; None: those that COCO has as objects
    background: tuple[str, ...] = ("sky",)  # without a surface at a finite distance


class OnnxSegmentation(OnnxLabeler):
    """Labels `semseg`."""

    name, title, modality = "onnx_semseg", "Segmentation by an ONNX file", "semseg"
    config_class = OnnxSegmentationConfig
    config: OnnxSegmentationConfig

    @classmethod
    def class_table(cls, config: OnnxSegmentationConfig) -> ClassTable:
        """Return the configured classes."""
        return table_of_names(config.classes, config.things, config.background)

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return uint8 (H, W), class ids."""
        found = []
        for images, (raw, *_) in self.run(batch["rgb"]):
            is_logits = raw.ndim == 4 and raw.shape[1] == len(self.config.classes)
            for image, one in zip(images, raw, strict=True):
                if is_logits:
                    found.append(at_image(one, image, self.config.input).argmax(0).astype(np.uint8))
                else:
                    ids_hw = np.squeeze(one).astype(np.float32)[None]
                    found.append(at_image(ids_hw, image, self.config.input, nearest=True)[0].astype(np.uint8))
        return found


class OnnxBoxesConfig(OnnxConfig):
    """Settings of detection.

    Formats of the outputs:
    - corners: boxes (B, N, 4), scores (B, N), ids of classes (B, N), as detectors with their own post-processing give
    - yolo: (B, 4 + K, N), centers and sizes in pixels of the input, then scores of the classes (YOLO from version 8 on)
    - yolo_objectness: (B, N, 5 + K), with an objectness before the classes (YOLO 5 and 7)
    """

    format: Literal["corners", "yolo", "yolo_objectness"] = "corners"
    units: Literal["pixels", "share"] = "pixels"  # of boxes: pixels of the input, or its size as 1
    classes: tuple[str, ...] = Field(min_length=1)  # names by id
    threshold: float = Field(0.25, ge=0, le=1)  # boxes with a lower score are dropped
    max_overlap: float = Field(0.5, ge=0, le=1)  # IoU of boxes of a class, above which the one with the lower score is dropped
    max_boxes: int = Field(100, ge=1)  # of an image, those with the highest scores


class OnnxBoxes(OnnxLabeler):
    """Labels `det`."""

    name, title, modality = "onnx_det", "Boxes by an ONNX file", "det"
    config_class = OnnxBoxesConfig
    config: OnnxBoxesConfig

    @classmethod
    def class_table(cls, config: OnnxBoxesConfig) -> ClassTable:
        """Return the configured names; each is a thing."""
        return box_table(config.classes)

    def label(self, batch: Batch, output: Any = None) -> list[dict[str, Any]]:
        """Return `{"instances": [{"box": [xmin, ymin, xmax, ymax] in 0-1, "class_name", "score"}, ...]}`, best first."""
        found = []
        for images, outputs in self.run(batch["rgb"]):
            for index, image in enumerate(images):
                boxes_N4, scores_N, ids_N = self._corners([one[index] for one in outputs])
                found.append(self._kept(image, boxes_N4, scores_N, ids_N))
        return found

    def _corners(self, outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return boxes (N, 4) as corners in pixels of the input, scores (N,) and ids (N,) of one image."""
        rows, columns = self.config.input.size
        scale_4 = np.array([columns, rows, columns, rows]) if self.config.units == "share" else np.ones(4)
        if self.config.format == "corners":
            boxes_N4, scores_N, ids_N = outputs[:3]
            return boxes_N4 * scale_4, scores_N, ids_N.astype(np.int64)
        table = outputs[0].T if self.config.format == "yolo" else outputs[0]
        centers_N4, scores_NK = table[:, :4] * scale_4, table[:, 4:]
        if self.config.format == "yolo_objectness":
            scores_NK = scores_NK[:, :1] * scores_NK[:, 1:]
        half_N2 = centers_N4[:, 2:] / 2
        corners_N4 = np.concatenate([centers_N4[:, :2] - half_N2, centers_N4[:, :2] + half_N2], 1)
        return corners_N4, scores_NK.max(1), scores_NK.argmax(1)

    def _kept(self, image: Image.Image, boxes_N4: np.ndarray, scores_N: np.ndarray, ids_N: np.ndarray) -> dict[str, Any]:
        is_kept_N = (scores_N >= self.config.threshold) & (ids_N >= 0) & (ids_N < len(self.config.classes))
        boxes_N4, scores_N, ids_N = boxes_N4[is_kept_N], scores_N[is_kept_N], ids_N[is_kept_N]
        left, top, width, height = placement(image.size, self.config.input)
        shares_N4 = (boxes_N4 - [left, top, left, top]) / [width, height, width, height]
        kept = [
            members[non_maximum_suppression(boxes_N4[members], scores_N[members], self.config.max_overlap)]
            for members in (np.flatnonzero(ids_N == i) for i in np.unique(ids_N))
        ]
        chosen = np.concatenate(kept) if kept else np.zeros(0, np.int64)
        names = [self.config.classes[i] for i in ids_N[chosen]]
        return boxes_of(shares_N4[chosen].tolist(), names, scores_N[chosen].tolist(), self.config.max_boxes)


class OnnxFeaturesConfig(OnnxConfig):
    """Settings of features; the output is tokens (B, L, C), a map (B, C, h, w), or vectors (B, C)."""

    skip: int = Field(0, ge=0)  # class and register tokens before those of the patches
    grid: tuple[int, int] | None = None  # rows and columns; patches are averaged or interpolated. None: as the network has them


class OnnxClip(OnnxLabeler):
    """Labels `clip`."""

    name, title, modality = "onnx_clip", "Patch features by an ONNX file", "clip"
    config_class = OnnxFeaturesConfig
    config: OnnxFeaturesConfig

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return float16 (h, w, C)."""
        found = []
        for _, (raw, *_) in self.run(batch["rgb"]):
            if raw.ndim == 3:
                side = round((raw.shape[1] - self.config.skip) ** 0.5)
                raw = raw[:, self.config.skip : self.config.skip + side**2].transpose(0, 2, 1)
                raw = raw.reshape(*raw.shape[:2], side, side)
            features = regridded(torch.from_numpy(np.ascontiguousarray(raw, np.float32)), self.config.grid)
            found += list(features.movedim(1, -1).numpy().astype(np.float16))
        return found


class OnnxClipVector(OnnxLabeler):
    """Labels `clip_global`."""

    name, title, modality = "onnx_clip_global", "Image embedding by an ONNX file", "clip_global"
    config_class = OnnxFeaturesConfig
    config: OnnxFeaturesConfig

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return float16 (C,) of unit length."""
        found: list[np.ndarray] = []
        for images, (raw, *_) in self.run(batch["rgb"]):
            vectors_BC = raw.reshape(len(images), -1).astype(np.float32)
            vectors_BC /= np.linalg.norm(vectors_BC, axis=-1, keepdims=True).clip(1e-12)
            found += list(vectors_BC.astype(np.float16))
        return found


def at_image(values_Chw: np.ndarray, image: Image.Image, config: InputConfig, nearest: bool = False) -> np.ndarray:
    """Return values of the network's input (C, h, w) at the pixels of the image (C, H, W), without the padding."""
    left, top, width, height = placement(image.size, config)
    rows, columns = config.size
    h, w = values_Chw.shape[-2:]
    below, right = round((top + height) * h / rows), round((left + width) * w / columns)
    inside = values_Chw[:, round(top * h / rows) : below, round(left * w / columns) : right]
    tensor = torch.from_numpy(np.ascontiguousarray(inside, np.float32))[None]
    size = (image.height, image.width)
    resized = F.interpolate(tensor, size, mode="nearest") if nearest else F.interpolate(tensor, size, mode="bilinear")
    return resized[0].numpy()
