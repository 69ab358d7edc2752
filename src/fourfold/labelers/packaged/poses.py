"""Joints of the most prominent person by MoveNet (single pose, thunder), a CenterNet on MobileNetV2 (arXiv 1904.07850)."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field

from fourfold.labelers.boxes import DECIMALS
from fourfold.labelers.packaged.labeler import GraphLabeler, with_longer_side
from fourfold.labelers.packaged.networks import MOVENET, PackagedConfig
from fourfold.labelers.protocol import Batch
from fourfold.modalities.keypoints import JOINTS

# J joints

SIDE = 256  # pixels, of the network's input
INPUT, OUTPUT = "input", "Identity"


class PoseConfig(PackagedConfig):
    """Settings of the joints."""

    threshold: float = Field(0.3, ge=0, le=1)  # joints with a lower score count as not visible
    # A person has this many visible joints, and this mean of their scores; chosen by eye on 266 photographs of 64 pixels
    min_joints: int = Field(5, ge=1, le=len(JOINTS))
    min_score: float = Field(0.42, ge=0, le=1)


class PackagedKeypoints(GraphLabeler):
    """Labels `keypoints`. The network looks for one person in an image, also where there are several."""

    name, title, modality = "packaged_keypoints", "Joints by MoveNet", "keypoints"
    networks = (MOVENET,)
    config_class = PoseConfig
    config: PoseConfig

    def label(self, batch: Batch, output: Any = None) -> list[dict[str, Any]]:
        """Return `{"instances": [{"box", "points": {"nose": [x, y], ...}, "score"}]}` with one person or none.

        Coordinates are in 0-1. The box, [xmin, ymin, xmax, ymax], is the smallest around the visible joints; the score is the
        mean of theirs.
        """
        return [self._person(self.predict(Image.fromarray(np.asarray(rgb_HW3)))) for rgb_HW3 in batch["rgb"]]

    def predict(self, image: Image.Image) -> np.ndarray:
        """Return x, y and score of each joint, float32 (J, 3): 0-1 in the image, and beyond where a joint is outside of it."""
        resized, square = with_longer_side(image, SIDE), Image.new("RGB", (SIDE, SIDE))
        corner_2 = np.array([(SIDE - length) // 2 for length in resized.size])
        square.paste(resized, tuple(corner_2.tolist()))
        pixels_1HW3 = torch.from_numpy(np.asarray(square).astype(np.int32))[None]
        (found_11J3,) = self.graph.run({INPUT: pixels_1HW3}, [OUTPUT])
        found_J3 = found_11J3[0, 0].numpy()[:, [1, 0, 2]]
        found_J3[:, :2] = (found_J3[:, :2] * SIDE - corner_2) / resized.size
        return found_J3

    def _person(self, found_J3: np.ndarray) -> dict[str, Any]:
        is_inside_J = ((found_J3[:, :2] >= 0) & (found_J3[:, :2] <= 1)).all(axis=1)
        visible = np.flatnonzero((found_J3[:, 2] >= self.config.threshold) & is_inside_J)
        score = float(found_J3[visible, 2].mean()) if len(visible) else 0.0
        if len(visible) < self.config.min_joints or score < self.config.min_score:
            return {"instances": []}
        points_J2 = np.round(found_J3[visible, :2].astype(np.float64), DECIMALS)
        return {
            "instances": [
                {
                    "box": [*points_J2.min(axis=0).tolist(), *points_J2.max(axis=0).tolist()],
                    "points": {JOINTS[index]: point for index, point in zip(visible, points_J2.tolist(), strict=True)},
                    "score": round(min(score, 1.0), DECIMALS),
                }
            ]
        }
