"""The teacher of the scenes, and the three labelers that read its outputs."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fourfold.configuration import Config
from fourfold.labelers.fitting import fit, seeded_weights
from fourfold.labelers.protocol import Batch, Facts, Labeler, Teacher, TrainingData
from fourfold.modalities.class_table import ClassTable
from fourfold.scenes.teachers.boxes import decode_boxes
from fourfold.scenes.teachers.losses import SceneTruth, scene_losses
from fourfold.scenes.teachers.network import SceneNetwork, SceneNetworkConfig, SceneOutputs
from fourfold.scenes.world.vocabulary import CLASS_TABLE, OBJECT_CLASSES
from fourfold.seeds import numpy_generator
from fourfold.training.run_context import RunContext

MAX_BOXES = 20  # of one image
MIN_SCORE = 0.05  # of a raw box; integration applies a higher one
DEPTH_RANGE = (0.1, 1000.0)  # meters


def train_scene_network(data: TrainingData, config: SceneNetworkConfig, context: RunContext) -> tuple[SceneNetwork, Facts]:
    """Train depth, segmentation and boxes together on exact truth; the same seed gives the same weights."""
    samples = SceneTruth.read(data.shards, data.truth, data.annotated_split)
    with seeded_weights(context.seed, "scene"):
        network = SceneNetwork(config)

    def losses(indices: np.ndarray, step: int) -> dict[str, Tensor]:
        mirrored = numpy_generator(context.seed, "teachers", "scene", "mirrors", step).random(len(indices)) < 0.5
        batch = samples.take(indices, mirrored & config.flip)
        return scene_losses(network(batch.rgb_NHWC), batch, config)

    fit(network, losses, len(samples.rgb_NHWC), config.fit, "scene", context)
    return network, {}


def _build(config: SceneNetworkConfig, facts: Facts) -> SceneNetwork:
    return SceneNetwork(config)


def _predict(network: SceneNetwork, batch: Batch) -> SceneOutputs:
    with torch.inference_mode():
        return network(torch.from_numpy(batch["rgb"]))


SCENE_NETWORK = Teacher("scene_network", SceneNetworkConfig, train_scene_network, _build, _predict)


class SceneDepth(Labeler):
    """Labels `depth`: meters along the viewing axis."""

    name, title, modality = "scene_depth", "Depth by the scene network", "depth"
    kind = "scenes"
    teacher = SCENE_NETWORK

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return (H, W) float16 arrays."""
        depth_BHW = output.log_depth_BHW.exp().clamp(*DEPTH_RANGE)
        return list(depth_BHW.to(torch.float16).numpy())


class SceneSegmentation(Labeler):
    """Labels `semseg`: the most likely class of every pixel."""

    name, title, modality = "scene_segmentation", "Segmentation by the scene network", "semseg"
    kind = "scenes"
    teacher = SCENE_NETWORK

    @classmethod
    def class_table(cls, config: Config) -> ClassTable:
        """Return the classes of the scenes, whatever the settings."""
        return CLASS_TABLE

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return (H, W) uint8 arrays of class ids."""
        return list(output.classes_BKHW.argmax(1).to(torch.uint8).numpy())


class SceneBoxes(Labeler):
    """Labels `det`: objects with box, class and score."""

    name, title, modality = "scene_boxes", "Boxes by the scene network", "det"
    kind = "scenes"
    teacher = SCENE_NETWORK

    def label(self, batch: Batch, output: Any = None) -> list[dict]:
        """Return values of `det`, highest score first; weak boxes are kept, since integration decides about them."""
        return decode_boxes(output.heat_BKhw, output.offsets_B4hw, OBJECT_CLASSES, MAX_BOXES, MIN_SCORE)


SCENE_LABELERS = (SceneDepth, SceneSegmentation, SceneBoxes)
