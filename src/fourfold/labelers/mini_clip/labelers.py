"""The labelers of the mini-CLIP: patch features, and the vector of a whole image."""

from typing import Any

import numpy as np

from fourfold.labelers.mini_clip.network import MiniClip, MiniClipConfig
from fourfold.labelers.mini_clip.training import build_mini_clip, train_mini_clip
from fourfold.labelers.protocol import Batch, Labeler, Teacher


def _patch_features(network: MiniClip, batch: Batch) -> np.ndarray:
    """Return (B, h, w, C) float32."""
    return network.encode_image(batch["rgb"])[0]


MINI_CLIP = Teacher("mini_clip", MiniClipConfig, train_mini_clip, build_mini_clip, _patch_features)


class MiniClipFeatures(Labeler):
    """Labels `clip`."""

    name, title, modality = "mini_clip", "Patch features of the mini-CLIP", "clip"
    teacher = MINI_CLIP

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return (h, w, C) float16 arrays."""
        return list(output.astype(np.float16))


class MiniClipVector(Labeler):
    """Labels `clip_global` from the `clip` labels, so that both agree."""

    name, title, modality = "mini_clip_global", "Image embedding of the mini-CLIP", "clip_global"
    requires = ("clip",)

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return (C,) float16 arrays of unit length."""
        return list(MiniClip.pool(np.stack(batch["clip"])).astype(np.float16))
