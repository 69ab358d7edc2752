"""What can be said of an image in a number, from its pixels, its caption and other labels (4M-21, appendix).

Of the 21 types of `fourfold.modalities.metadata`, these need no network of their own; another labeler may add the rest (SAM
instances, watermark, aesthetic score). `original_*` is the size of the image after ingestion.
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
from fourfold.labelers.protocol import Batch
from fourfold.modalities.metadata import known_type
from fourfold.scenes.world import CLASS_NAMES, OBJECT_CLASSES

Sample = Mapping[str, Any]
HUMAN = "person"
SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
STEP_OF_DEPTH = 0.3  # of the Sobel gradient of a depth that is scaled to 0-1; beyond it lies an occlusion
DECIMALS = 6


@dataclass(frozen=True)
class Measure:
    """How a type is computed of one sample, and from which columns."""

    needs: tuple[str, ...]
    value: Callable[[Sample], float]


def colorfulness(rgb_HW3: np.ndarray) -> float:
    """Return the colorfulness of a picture 0-255 (Hasler and Süsstrunk 2003, the metric M3)."""
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
    """Return the share of pixels at a step of the depth: where its Sobel gradient is above `STEP_OF_DEPTH`.

    4M-21 has the threshold, 0.3, of relative depth; metric depth is scaled to 0-1 within the picture for it.
    """
    depth = depth_HW.astype(np.float64)
    extent = depth.max() - depth.min()
    relative = (depth - depth.min()) / extent if extent else np.zeros_like(depth)
    return float((np.hypot(ndimage.sobel(relative, 0), ndimage.sobel(relative, 1)) > STEP_OF_DEPTH).mean())


def num_sentences(caption: str) -> int:
    """Return how many sentences a caption has; words without a full stop are one."""
    return sum(bool(part.strip()) for part in SENTENCE_END.split(caption))


def instance_counts(instances: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the types that are counts of boxes."""
    names = [instance["class_name"] for instance in instances]
    return {
        "n_humans": names.count(HUMAN),
        "n_coco_instances": len(names),
        "coco_instance_diversity": len(set(names)),
    }


def _share_of(names: Sequence[str], sample: Sample) -> float:
    ids = [number for number, name in enumerate(CLASS_NAMES) if name in names]
    return float(np.isin(sample["semseg"], ids).mean())


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
    "walkability": Measure(("semseg",), partial(_share_of, ("ground",))),
    "objectness": Measure(("semseg",), partial(_share_of, OBJECT_CLASSES)),
    "semantic_diversity": Measure(("semseg",), lambda sample: len(np.unique(sample["semseg"]))),
    "geometric_complexity": Measure(("normal",), lambda sample: geometric_complexity(sample["normal"])),
    "occlusion_score": Measure(("depth",), lambda sample: occlusion(sample["depth"])),
}


class MetadataConfig(Config):
    """Which types are computed; each needs the labels that it is made from."""

    types: tuple[str, ...] = tuple(MEASURES)

    @field_validator("types")
    @classmethod
    def _computable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if known_type(name) not in MEASURES:
                raise ValueError(f"{name!r} cannot be computed here; these can: {', '.join(MEASURES)}.")
        return value


class ImageMetadata:
    """The labeler of `metadata`."""

    name, modality, version = "image_metadata", "metadata", "1"

    def __init__(self, config: MetadataConfig) -> None:
        self.types = config.types
        self.needs = tuple(sorted({need for name in config.types for need in MEASURES[name].needs}))

    def label(self, batch: Batch) -> list[dict[str, float]]:
        """Return a number by type of each sample."""
        columns = [batch[need] for need in self.needs]
        samples = (dict(zip(self.needs, values, strict=True)) for values in zip(*columns, strict=True))
        return [{name: round(MEASURES[name].value(sample), DECIMALS) for name in self.types} for sample in samples]


def recounted(metadata: Mapping[str, float], instances: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return metadata whose counts of boxes are those of `instances`, as far as it has such types."""
    counts = instance_counts(instances)
    return {name: counts.get(name, value) for name, value in metadata.items()}
