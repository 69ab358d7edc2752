"""Training the scene network, and the three labelers that read its heads."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fourfold.data.shards import ShardSet
from fourfold.labelers.fitting import fit, seeded_weights
from fourfold.labelers.protocol import Batch
from fourfold.metric_log import MetricLog
from fourfold.scenes.teachers.boxes import read_boxes
from fourfold.scenes.teachers.losses import SceneTruth, scene_losses
from fourfold.scenes.teachers.network import SceneNetwork
from fourfold.scenes.world.vocabulary import OBJECT_CLASSES
from fourfold.seeds import numpy_generator

if TYPE_CHECKING:
    from fourfold.labelers.config import LabelingConfig

MOST_BOXES = 20  # of one picture
LEAST_SCORE = 0.05  # of a raw box; integration is stricter
DEPTH_RANGE = (0.1, 1000.0)  # meters


def train_scene_network(
    shards: ShardSet, truth: ShardSet, config: "LabelingConfig", seed: int, log: MetricLog
) -> tuple[SceneNetwork, dict[str, Any]]:
    """Train depth, segmentation and boxes together on exact truth; the same seed gives the same weights."""
    samples = SceneTruth.read(shards, truth, config.annotated_split)
    with seeded_weights(seed, "scene"):
        network = SceneNetwork(config.scene)

    def losses(indices: np.ndarray, step: int) -> dict[str, Tensor]:
        mirrored = numpy_generator(seed, "teachers", "scene", "mirrors", step).random(len(indices)) < 0.5
        batch = samples.take(indices, mirrored & config.scene.flip)
        return scene_losses(network(batch.rgb_NHWC), batch, config.scene)

    fit(network, losses, len(samples.rgb_NHWC), config.scene.fit, seed, "scene", log)
    return network, {}


class SceneDepth:
    """Metres along the viewing axis."""

    name, modality, version = "scene_depth", "depth", "1"
    needs: tuple[str, ...] = ("rgb",)

    def __init__(self, network: SceneNetwork) -> None:
        self.network = network

    def label(self, batch: Batch) -> list[np.ndarray]:
        """Return (H, W) float16 arrays."""
        depth_BHW = self.network.look(batch).log_depth_BHW.exp().clamp(*DEPTH_RANGE)
        return list(depth_BHW.to(torch.float16).numpy())


class SceneSegmentation:
    """The most likely class of every pixel."""

    name, modality, version = "scene_segmentation", "semseg", "1"
    needs: tuple[str, ...] = ("rgb",)

    def __init__(self, network: SceneNetwork) -> None:
        self.network = network

    def label(self, batch: Batch) -> list[np.ndarray]:
        """Return (H, W) uint8 arrays of class ids."""
        return list(self.network.look(batch).classes_BKHW.argmax(1).to(torch.uint8).numpy())


class SceneBoxes:
    """Objects with box, class and score."""

    name, modality, version = "scene_boxes", "det", "1"
    needs: tuple[str, ...] = ("rgb",)

    def __init__(self, network: SceneNetwork) -> None:
        self.network = network

    def label(self, batch: Batch) -> list[dict]:
        """Return values of `det`, hottest box first; weak ones are kept: integration decides."""
        outputs = self.network.look(batch)
        return read_boxes(outputs.heat_BKhw, outputs.offsets_B4hw, OBJECT_CLASSES, MOST_BOXES, LEAST_SCORE)
