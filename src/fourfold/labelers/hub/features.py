"""Features by vision encoders of the hub: CLIP, SigLIP, SigLIP 2, DINOv2, DINOv3 and other models with patch tokens.

Patch features of CLIP are those of 4M (arXiv 2312.06647 §A.2): the last tokens after the final layer norm and the projection
into the space of the texts. Those of the others are their last tokens as the library returns them. Class and register tokens
are left out. Global vectors have unit length.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fourfold.labelers.grids import mean_direction, regridded
from fourfold.labelers.hub.checkpoints import HubConfig
from fourfold.labelers.hub.running import TransformersLabeler
from fourfold.labelers.protocol import Batch

# B images, L tokens, h, w rows and columns of patches, C channels


class FeaturesConfig(HubConfig):
    """Settings of feature extraction."""

    grid: tuple[int, int] | None = None  # rows and columns; patches are averaged or interpolated. None: as the model has them
    channels: int | None = Field(None, ge=1)  # the first ones are kept; None: all


class TransformersFeatures(TransformersLabeler):
    """What labelers of patch features and of global vectors share."""

    config_class = FeaturesConfig
    config: FeaturesConfig

    def model_class(self) -> Any:  # noqa: D102
        from transformers import AutoModel

        return AutoModel

    @property
    def vision(self) -> Any:
        """The vision tower of the model."""
        return getattr(self.model, "vision_model", self.model)

    def encode(self, rgb_BHW3: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return patch features (B, h, w, C) and unit vectors (B, D), float32."""
        patches, vectors = [], []
        with torch.inference_mode():
            for images in self.chunks(rgb_BHW3):
                features_BhwC, vectors_BD = self._encode(self.inputs(images=images))
                patches.append(self._regridded(features_BhwC))
                vectors.append(F.normalize(vectors_BD.float(), dim=-1).cpu())
        return torch.cat(patches).numpy(), torch.cat(vectors).numpy()

    def _encode(self, inputs: Any) -> tuple[Tensor, Tensor]:
        outputs = self.vision(**inputs)
        tokens_BLC, vectors_BD = outputs.last_hidden_state, outputs.pooler_output
        if hasattr(self.model, "visual_projection"):  # CLIP: the tower returns tokens before its last layer norm
            tokens_BLC = self.model.visual_projection(self.vision.post_layernorm(tokens_BLC))
            vectors_BD = self.model.visual_projection(vectors_BD)
        h, w = self._grid(inputs)
        skipped = 0 if "spatial_shapes" in inputs else tokens_BLC.shape[1] - h * w  # class and register tokens come first
        return tokens_BLC[:, skipped : skipped + h * w].unflatten(1, (h, w)), vectors_BD

    def _grid(self, inputs: Any) -> tuple[int, int]:
        """Return rows and columns of patches of the prepared images, which have equal sizes."""
        if "spatial_shapes" in inputs:  # SigLIP 2: patches of an image are a padded sequence
            h, w = inputs["spatial_shapes"][0].tolist()
            return h, w
        patch = self.vision.config.patch_size
        height, width = inputs["pixel_values"].shape[-2:]
        rows, columns = patch if isinstance(patch, (tuple, list)) else (patch, patch)
        return height // rows, width // columns

    def _regridded(self, features_BhwC: Tensor) -> Tensor:
        features_BChw = features_BhwC[..., : self.config.channels].float().cpu().movedim(-1, 1)
        return regridded(features_BChw, self.config.grid).movedim(1, -1)


class TransformersPatches(TransformersFeatures):
    """Labels a modality of patch features."""

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return float16 (h, w, C)."""
        return list(self.encode(batch["rgb"])[0].astype(np.float16))


class TransformersVector(TransformersFeatures):
    """Labels a modality of global vectors."""

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return float16 (C,) of unit length."""
        return list(self.encode(batch["rgb"])[1].astype(np.float16))


class ClipPatches(TransformersPatches):
    """Labels `clip`; encodes texts too, with a model of images and texts."""

    name, title, modality = "transformers_clip", "Patch features by a checkpoint of the hub", "clip"

    def processor_class(self) -> Any:
        """Return the class that prepares images and texts, if the model reads both."""
        from transformers import AutoImageProcessor, AutoProcessor

        return AutoProcessor if hasattr(self.checkpoint.config, "text_config") else AutoImageProcessor

    def encode_image(self, rgb_BHWC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return patch features (B, h, w, C) and unit vectors (B, C), float32, of images uint8 (B, H, W, 3)."""
        return self.encode(rgb_BHWC)

    def encode_text(self, texts: list[str]) -> np.ndarray:
        """Return unit vectors (B, C) float32; raises ValueError when the model reads no texts."""
        if not hasattr(self.checkpoint.config, "text_config"):
            raise ValueError(
                f"Model {self.config.model!r} reads no texts. Set evaluation.text_encoder to another one, or null."
            )
        found = []
        with torch.inference_mode():
            for start in range(0, len(texts), self.config.batch_size):
                some = texts[start : start + self.config.batch_size]
                is_clip = hasattr(self.model, "text_projection")
                padding = True if is_clip else "max_length"  # SigLIP was trained with padding to the full length
                inputs = self.inputs(text=some, padding=padding, truncation=True)
                found.append(F.normalize(self.model.get_text_features(**inputs).pooler_output.float(), dim=-1).cpu())
        return torch.cat(found).numpy()

    def pool(self, features_BhwC: np.ndarray) -> np.ndarray:
        """Return unit vectors (B, C) float32: the mean direction of the patches."""
        return mean_direction(features_BhwC)


class ClipVector(TransformersVector):
    """Labels `clip_global`."""

    name, title, modality = "transformers_clip_global", "Image embedding by a checkpoint of the hub", "clip_global"


class DinoPatches(TransformersPatches):
    """Labels `dinov2`."""

    name, title, modality = "transformers_dinov2", "Patch features of DINO by a checkpoint of the hub", "dinov2"


class DinoVector(TransformersVector):
    """Labels `dinov2_global`."""

    name, title, modality = "transformers_dinov2_global", "Class token of DINO by a checkpoint of the hub", "dinov2_global"


FEATURE_LABELERS = (ClipPatches, ClipVector, DinoPatches, DinoVector)
