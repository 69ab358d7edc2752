"""ConSE (Norouzi et al., ICLR 2014): image features in the space of sentence embeddings, without any training.

A classifier gives the probabilities of the ImageNet classes. The image is the mean of the sentence embeddings of its ten
likeliest class names, weighted by probability, so that any text can be compared with it. As the classifier is linear after
its pooling, the same works at each place of its last feature map. The classes have no person: people are its weak point.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor

from fourfold.labelers.grids import mean_direction, regridded
from fourfold.labelers.packaged.efficientnet import EfficientNetLite
from fourfold.labelers.packaged.labeler import PackagedLabeler
from fourfold.labelers.packaged.networks import (
    EFFICIENTNET,
    MINILM,
    PackagedConfig,
)
from fourfold.labelers.packaged.sentences import SentenceEncoder
from fourfold.labelers.protocol import Batch

# B images, h, w rows and columns, K classes, D width of the embeddings

SIDE = 260  # pixels, of the classifier's input
NUM_CLASSES = 10  # that an image is made of, as in the paper
CLASSES_FILE = "imagenet.safetensors"
NAMES_FILE = Path(__file__).with_name("imagenet_classes.txt")


class ConseConfig(PackagedConfig):
    """Settings of the features."""

    grid: tuple[int, int] = (8, 8)  # rows and columns of the patch features: those of the image's tokens
    crop: float = Field(1.0, gt=0, le=1)  # share of the shorter side that a central square shows; 1: the whole image, squeezed
    batch_size: int = Field(16, ge=1)  # images in one forward pass


class Conse(PackagedLabeler):
    """What the labelers of patch features and of global vectors share; encodes texts too."""

    networks = (EFFICIENTNET, MINILM)
    config_class = ConseConfig
    config: ConseConfig

    @cached_property
    def classifier(self) -> EfficientNetLite:
        """The image classifier."""
        return EfficientNetLite(load_file(self.folders[0] / "weights.safetensors"))

    @cached_property
    def sentences(self) -> SentenceEncoder:
        """The encoder of texts."""
        return SentenceEncoder.load(self.folders[1])

    @cached_property
    def classes_KD(self) -> Tensor:
        """The embeddings of the names of the ImageNet classes."""
        return load_file(self.folders[1] / CLASSES_FILE)["embeddings"]

    def encode_image(self, rgb_BHWC: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return patch features (B, h, w, D) and unit vectors (B, D), float32, of images uint8 (B, H, W, 3)."""
        patches, vectors = [], []
        with torch.inference_mode():
            for start in range(0, len(rgb_BHWC), self.config.batch_size):
                pixels = torch.stack(
                    [prepared(rgb, self.config.crop) for rgb in rgb_BHWC[start : start + self.config.batch_size]]
                )
                features_BChw = self.classifier.features(pixels)
                vectors.append(self._embedded(features_BChw.mean((2, 3))))
                resized_BChw = regridded(features_BChw, self.config.grid)
                patches.append(self._embedded(resized_BChw.movedim(1, -1)))
        return torch.cat(patches).numpy(), torch.cat(vectors).numpy()

    def encode_text(self, texts: list[str]) -> np.ndarray:
        """Return unit vectors (B, D) float32."""
        return self.sentences.encode(texts)

    def pool(self, features_BhwC: np.ndarray) -> np.ndarray:
        """Return unit vectors (B, D) float32: the mean direction of the patches."""
        return mean_direction(features_BhwC)

    def _embedded(self, features_BxC: Tensor) -> Tensor:
        """Return unit vectors (..., D) of features (..., 1280)."""
        probabilities, indices = self.classifier.classify(features_BxC).softmax(-1).topk(NUM_CLASSES)
        weights = probabilities / probabilities.sum(-1, keepdim=True)
        return F.normalize((self.classes_KD[indices] * weights[..., None]).sum(-2), dim=-1)


class PackagedClip(Conse):
    """Labels `clip`."""

    name, title, modality = "packaged_clip", "Patch features by ConSE (ImageNet classes as sentences)", "clip"

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return float16 (h, w, D)."""
        return list(self.encode_image(batch["rgb"])[0].astype(np.float16))


class PackagedClipVector(Conse):
    """Labels `clip_global`."""

    name, title, modality = "packaged_clip_global", "Image embedding by ConSE (ImageNet classes as sentences)", "clip_global"

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return float16 (D,) of unit length."""
        return list(self.encode_image(batch["rgb"])[1].astype(np.float16))


def prepared(rgb_HW3: Any, crop: float) -> Tensor:
    """Return the classifier's input (3, 260, 260) of an image uint8."""
    image = Image.fromarray(np.asarray(rgb_HW3))
    side = min(image.size) * crop
    left, top = (image.width - side) / 2, (image.height - side) / 2
    shown = (left, top, left + side, top + side) if crop < 1 else None
    resized = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=shown)
    return torch.from_numpy((np.asarray(resized, np.float32) - 127) / 128).movedim(-1, 0).contiguous()


def class_names() -> list[list[str]]:
    """Return the names of the ImageNet classes by id, several for each."""
    return [line.split(", ") for line in NAMES_FILE.read_text(encoding="utf-8").splitlines()]


def embed_classes(encoder: SentenceEncoder, names: Sequence[Sequence[str]] | None = None) -> Tensor:
    """Return the embeddings (K, D) of classes: the mean over "a photo of a NAME" of its names."""
    names = class_names() if names is None else names
    flat = encoder.encode([f"a photo of a {name}" for of_class in names for name in of_class])
    ends = np.cumsum([len(of_class) for of_class in names])
    return torch.from_numpy(np.stack([part.mean(0) for part in np.split(flat, ends[:-1])]))
