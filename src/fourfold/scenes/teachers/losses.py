"""Training data and losses of the scene network: exact truth of the annotated split, and one loss for each head.

Shapes: B batch, H, W pixels, K classes, h, w cells of 4 × 4 pixels, N samples.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fourfold.data.shards import ShardSet
from fourfold.scenes.teachers.boxes import box_loss, box_maps
from fourfold.scenes.teachers.network import SceneNetworkConfig, SceneOutputs
from fourfold.scenes.world.vocabulary import CLASS_TABLE, GROUND_ID, OBJECT_CLASSES, SKY_ID

CELL = 4  # pixels
MAX_STEP = 0.1  # of log depth between neighboring pixels on one surface


@dataclass(frozen=True)
class SceneTruth:
    """Pixels and truth of N (or, after `take`, B) samples."""

    rgb_NHWC: Tensor  # uint8
    log_depth_NHW: Tensor
    classes_NHW: Tensor  # uint8
    heat_NKhw: Tensor
    sides_N4hw: Tensor

    @classmethod
    def read(cls, shards: ShardSet, truth: ShardSet, split: str) -> "SceneTruth":
        """Read a whole split (about 100 kB a sample at 64 × 64 pixels).

        Raises ValueError when images and truth have different keys, or when the truth has other classes than the scenes.
        """
        if shards.keys(split) != truth.keys(split):
            raise ValueError(f"Images and truth of split {split!r} have different keys. Delete both and run ingestion again.")
        if (names := truth.class_table(split).names) != CLASS_TABLE.names:
            raise ValueError(
                f"The truth of split {split!r} has classes {', '.join(names)}; the scene network learns "
                f"{', '.join(CLASS_TABLE.names)}. Choose other labelers, or train on rendered scenes."
            )
        rgb = np.stack(shards.load_column(split, "rgb"))
        depth = np.stack(truth.load_column(split, "depth")).astype(np.float32)
        cells = (rgb.shape[1] // CELL, rgb.shape[2] // CELL)
        heat, sides = box_maps(truth.load_column(split, "det"), OBJECT_CLASSES, cells)
        classes = torch.from_numpy(np.stack(truth.load_column(split, "semseg")))
        return cls(torch.from_numpy(rgb), torch.from_numpy(depth).log(), classes, heat, sides)

    def take(self, indices: np.ndarray, mirrored: np.ndarray) -> "SceneTruth":
        """Return the samples at `indices`; those with `mirrored` (bool, one for each) are flipped left to right."""
        chosen = {field.name: getattr(self, field.name)[torch.from_numpy(indices)] for field in fields(self)}
        flip = torch.from_numpy(mirrored)
        for name, values in chosen.items():
            axis = 2 if name == "rgb_NHWC" else -1
            flipped = values[flip].flip(axis)
            if name == "sides_N4hw":  # the left side becomes the right one
                flipped = torch.stack((1 - flipped[:, 2], flipped[:, 1], 1 - flipped[:, 0], flipped[:, 3]), 1)
            values[flip] = flipped
        return SceneTruth(**chosen)


def scene_losses(outputs: SceneOutputs, truth: SceneTruth, config: SceneNetworkConfig) -> dict[str, Tensor]:
    """Return the weighted losses `depth`, `semseg` and `det`; their sum is minimized."""
    classes_BHW = truth.classes_NHW.long()
    class_weight_K = torch.full((outputs.classes_BKHW.shape[1],), config.object_class_weight)
    class_weight_K[[k for k in range(len(class_weight_K)) if k not in CLASS_TABLE.things]] = 1
    return {
        "depth": config.depth_weight * depth_loss(outputs.log_depth_BHW, truth.log_depth_NHW, classes_BHW, config),
        "semseg": config.semseg_weight * functional.cross_entropy(outputs.classes_BKHW, classes_BHW, class_weight_K),
        "det": config.box_weight * box_loss(outputs.heat_BKhw, outputs.offsets_B4hw, truth.heat_NKhw, truth.sides_N4hw),
    }


def depth_loss(predicted_BHW: Tensor, truth_BHW: Tensor, classes_BHW: Tensor, config: SceneNetworkConfig) -> Tensor:
    """Return the weighted L1 loss of log depth plus that of its differences between neighbors on one surface."""
    weight_BHW = torch.where(classes_BHW == SKY_ID, config.sky_weight, 1.0)
    weight_BHW = torch.where(classes_BHW > GROUND_ID, config.object_weight, weight_BHW)
    error_BHW = predicted_BHW - truth_BHW
    loss = (error_BHW.abs() * weight_BHW).sum() / weight_BHW.sum()
    for axis in (1, 2):
        step_BHW = truth_BHW.diff(dim=axis).abs()
        pairs = weight_BHW.narrow(axis, 1, step_BHW.shape[axis]) * (step_BHW < MAX_STEP)
        loss = loss + config.slope_weight * (error_BHW.diff(dim=axis).abs() * pairs).sum() / pairs.sum().clamp(min=1)
    return loss
