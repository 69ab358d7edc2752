"""Depth by checkpoints of depth estimation: DPT, MiDaS, Depth Anything, GLPN, ZoeDepth, Depth Pro, ...

Models of metric depth give meters. Others give inverse depth (near is large) of unknown scale and shift: it is scaled to the
depths `near` to `far` in each image, so that such labels order pixels by depth but are no measurement.
"""

from typing import Any, Literal

import numpy as np
import torch

from fourfold.labelers.depths import DepthRange, meters_of_inverse, meters_of_metric
from fourfold.labelers.hub.checkpoints import HubConfig
from fourfold.labelers.hub.running import TransformersLabeler, sizes_of
from fourfold.labelers.protocol import Batch

METRIC_MODELS = ("glpn", "zoedepth", "depth_pro")  # by `model_type`


class DepthConfig(DepthRange, HubConfig):
    """Settings of depth estimation."""

    output: Literal["auto", "metric", "inverse"] = "auto"  # auto: as the checkpoint's configuration says


class TransformersDepth(TransformersLabeler):
    """Labels `depth`."""

    name, title, modality = "transformers_depth", "Depth by a checkpoint of the hub", "depth"
    config_class = DepthConfig
    config: DepthConfig

    @property
    def is_metric(self) -> bool:
        """Whether the model gives meters."""
        if self.config.output != "auto":
            return self.config.output == "metric"
        known = self.checkpoint.config
        return known.model_type in METRIC_MODELS or getattr(known, "depth_estimation_type", "relative") == "metric"

    def origin(self) -> dict[str, Any]:
        """Return the origin of the checkpoint, and whether its depth is a measurement."""
        scale = "meters" if self.is_metric else f"relative, scaled to {self.config.near:g}-{self.config.far:g} m in each image"
        return {**super().origin(), "scale": scale}

    def model_class(self) -> Any:  # noqa: D102
        from transformers import AutoModelForDepthEstimation

        return AutoModelForDepthEstimation

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return float16 (H, W), meters."""
        return [self._meters(raw_HW) for raw_HW in self.predict(batch["rgb"])]

    def predict(self, rgb_BHW3: Any) -> list[np.ndarray]:
        """Return the output of the library's post-processing, float32 (H, W) at the size of the images."""
        found: list[np.ndarray] = []
        with torch.inference_mode():
            for images in self.chunks(rgb_BHW3):
                outputs, sizes = self.model(**self.inputs(images=images)), sizes_of(images)
                arguments = {"source_sizes": sizes} if self.checkpoint.config.model_type == "zoedepth" else {}
                results = self.processor.post_process_depth_estimation(outputs, target_sizes=sizes, **arguments)
                found += [result["predicted_depth"].float().cpu().numpy() for result in results]
        return found

    def _meters(self, raw_HW: np.ndarray) -> np.ndarray:
        if self.is_metric:
            return meters_of_metric(raw_HW).astype(np.float16)
        return meters_of_inverse(raw_HW, self.config.near, self.config.far).astype(np.float16)
