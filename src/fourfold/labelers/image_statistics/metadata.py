"""Metadata: numbers computed from the pixels, the caption and other labels of an image (4M-21, arXiv 2406.09406, appendix).

These types of `fourfold.modalities.metadata` need no network; another labeler may add the rest (SAM instances, watermark,
aesthetic score). `original_*` is the size of the image after ingestion.
"""

# H, W pixels

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from pydantic import field_validator
from scipy import ndimage
from skimage.color import rgb2hsv
from skimage.measure import shannon_entropy

from fourfold.configuration import Config
from fourfold.labelers.geometry.edges import gray
from fourfold.labelers.protocol import Batch, Labeler, LabelingContext
from fourfold.modalities.metadata import known_type

Sample = Mapping[str, Any]
HUMAN = "person"
SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
OCCLUSION_GRADIENT = 0.3  # Sobel gradient of depth scaled to 0-1 above which a pixel is at an occlusion
DECIMALS = 6


@dataclass(frozen=True)
class Measure:
    """How a type is computed from one sample, and which columns that requires."""

    requires: tuple[str, ...]
    value: Callable[[Sample], float]


def colorfulness(rgb_HW3: np.ndarray) -> float:
    """Return the colorfulness of an image 0-255 (Hasler and Süsstrunk 2003, the metric M3)."""
    red, green, blue = rgb_HW3.astype(np.float64).reshape(-1, 3).T
    opponents_2N = np.stack([red - green, (red + green) / 2 - blue])
    return float(np.linalg.norm(opponents_2N.std(1)) + 0.3 * np.linalg.norm(opponents_2N.mean(1)))


def saturation(rgb_HW3: np.ndarray) -> float:
    """Return the mean saturation (HSV), 0-255."""
    return float(rgb2hsv(rgb_HW3)[..., 1].mean() * 255)


def entropy(rgb_HW3: np.ndarray) -> float:
    """Return Shannon's entropy of the gray levels, in bits: 0 to 8."""
    return float(shannon_entropy(np.rint(gray(rgb_HW3)).astype(np.uint8)))


def geometric_complexity(normal_HW3: np.ndarray) -> float:
    """Return the angular variance of stored normals, 1 − |mean unit vector|: 0 for a plane (Mardia and Jupp, §9.2)."""
    vectors_N3 = normal_HW3.reshape(-1, 3).astype(np.float64) / 127.5 - 1
    vectors_N3 /= np.linalg.norm(vectors_N3, axis=1, keepdims=True)
    return float(1 - np.linalg.norm(vectors_N3.mean(0)))


def occlusion(depth_HW: np.ndarray) -> float:
    """Return the share of pixels at a depth discontinuity: where the Sobel gradient is above `OCCLUSION_GRADIENT`.

    4M-21 applies the threshold 0.3 to relative depth; here metric depth is scaled to 0-1 within the image first.
    """
    depth = depth_HW.astype(np.float64)
    extent = depth.max() - depth.min()
    relative = (depth - depth.min()) / extent if extent else np.zeros_like(depth)
    return float((np.hypot(ndimage.sobel(relative, 0), ndimage.sobel(relative, 1)) > OCCLUSION_GRADIENT).mean())


def num_sentences(caption: str) -> int:
    """Return how many sentences a caption has; text without a full stop is one."""
    return sum(bool(part.strip()) for part in SENTENCE_END.split(caption))


def instance_counts(instances: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the values of the types that count boxes."""
    names = [instance["class_name"] for instance in instances]
    return {
        "n_humans": names.count(HUMAN),
        "n_coco_instances": len(names),
        "coco_instance_diversity": len(set(names)),
    }


def _share_of_ids(ids: str, sample: Sample) -> float:
    """Return the share of pixels whose class is in `sample[ids]`, a list of ids that the labeler adds."""
    return float(np.isin(sample["semseg"], sample[ids]).mean())


def _count_of_boxes(name: str, sample: Sample) -> int:
    return instance_counts(sample["det"]["instances"])[name]


MEASURES: dict[str, Measure] = {
    "original_width": Measure(("rgb",), lambda sample: sample["rgb"].shape[1]),
    "original_height": Measure(("rgb",), lambda sample: sample["rgb"].shape[0]),
    "caption_n_chars": Measure(("caption",), lambda sample: len(sample["caption"])),
    "caption_n_words": Measure(("caption",), lambda sample: len(sample["caption"].split())),
    "caption_n_sentences": Measure(("caption",), lambda sample: num_sentences(sample["caption"])),
    **{name: Measure(("det",), partial(_count_of_boxes, name)) for name in instance_counts([])},
    "colorfulness": Measure(("rgb",), lambda sample: colorfulness(sample["rgb"])),
    "brightness": Measure(("rgb",), lambda sample: float(gray(sample["rgb"]).mean())),
    "contrast": Measure(("rgb",), lambda sample: float(gray(sample["rgb"]).std())),
    "saturation": Measure(("rgb",), lambda sample: saturation(sample["rgb"])),
    "entropy": Measure(("rgb",), lambda sample: entropy(sample["rgb"])),
    "walkability": Measure(("semseg",), partial(_share_of_ids, "walkable_ids")),
    "objectness": Measure(("semseg",), partial(_share_of_ids, "thing_ids")),
    "semantic_diversity": Measure(("semseg",), lambda sample: len(np.unique(sample["semseg"]))),
    "geometric_complexity": Measure(("normal",), lambda sample: geometric_complexity(sample["normal"])),
    "occlusion_score": Measure(("depth",), lambda sample: occlusion(sample["depth"])),
}


NEED_CLASSES = ("walkability", "objectness")  # types that depend on the meaning of class ids


class MetadataConfig(Config):
    """Which types are computed; the labels that a type requires must be configured too."""

    types: tuple[str, ...] = tuple(MEASURES)
    walkable_classes: tuple[str, ...] = ("ground",)  # names of classes, for `walkability`; those that do not exist are ignored

    @field_validator("types")
    @classmethod
    def _check_types(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if known_type(name) not in MEASURES:
                raise ValueError(f"{name!r} cannot be computed by this labeler. Allowed: {', '.join(MEASURES)}.")
        return value


class ImageMetadata(Labeler):
    """Labels `metadata`."""

    name, title, modality = "image_metadata", "Metadata computed from pixels, captions and labels", "metadata"
    config_class = MetadataConfig
    config: MetadataConfig

    def __init__(self, config: MetadataConfig | None = None, context: LabelingContext | None = None) -> None:
        super().__init__(config, context)
        self.requires = tuple(sorted({column for name in self.config.types for column in MEASURES[name].requires}))

    def label(self, batch: Batch, output: Any = None) -> list[dict[str, float]]:
        """Return, for each sample, a number for each type. Raises ValueError when the segmentation has no class table."""
        ids = self._class_ids() if set(NEED_CLASSES) & set(self.config.types) else {}
        columns = [batch[name] for name in self.requires]
        samples = (dict(zip(self.requires, values, strict=True)) | ids for values in zip(*columns, strict=True))
        return [
            {name: round(MEASURES[name].value(sample), DECIMALS) for name in self.config.types if _is_known(name, sample)}
            for sample in samples
        ]

    def _class_ids(self) -> dict[str, list[int]]:
        classes = self.context.class_tables.get("semseg")
        if classes is None:
            raise ValueError(
                f"Metadata of types {', '.join(NEED_CLASSES)} need the class table of `semseg`, which its labeler does not "
                "declare. Declare it, or leave these types out of pseudo_labeling.settings.image_metadata.types."
            )
        walkable = [number for number, name in enumerate(classes.names) if name in self.config.walkable_classes]
        return {"walkable_ids": walkable, "thing_ids": list(classes.things)}


def _is_known(name: str, sample: Sample) -> bool:
    """Return whether a sample has what a type is computed from: an image may have no caption."""
    return "caption" not in MEASURES[name].requires or bool(sample["caption"])


def recounted(metadata: Mapping[str, float], instances: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return metadata whose counts of boxes are those of `instances`; types that are missing are not added."""
    counts = instance_counts(instances)
    return {name: counts.get(name, value) for name, value in metadata.items()}
