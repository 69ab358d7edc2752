"""Which labelers there are, by the names that `conf/` uses.

To add one: write a class that meets `Labeler`, then an entry in `LABELERS` here or a call of `register`. A labeler may rest
on a *teacher*, a network that is trained first (`TEACHERS`). Several labelers may rest on one teacher: the default depth,
segmentation and boxes are three heads of one network, which is trained and run once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from fourfold.data.shards import ShardSet
from fourfold.labelers.geometry.edges import CannyEdges
from fourfold.labelers.geometry.normals import NormalsFromDepth
from fourfold.labelers.image_statistics.metadata import ImageMetadata
from fourfold.labelers.image_statistics.palettes import ColorPalettes
from fourfold.labelers.mini_clip.network import GlobalClip
from fourfold.labelers.mini_clip.training import build_mini_clip, train_mini_clip
from fourfold.labelers.protocol import Labeler
from fourfold.metric_log import MetricLog
from fourfold.scenes.teachers.labelers import SceneBoxes, SceneDepth, SceneSegmentation, train_scene_network
from fourfold.scenes.teachers.network import SceneNetwork
from fourfold.suggestions import unknown_name

if TYPE_CHECKING:
    from fourfold.labelers.config import LabelingConfig

Facts = dict[str, Any]  # JSON that a teacher needs beside its weights, e.g. the words it knows
Train = Callable[[ShardSet, ShardSet, "LabelingConfig", int, MetricLog], tuple[nn.Module, Facts]]


@dataclass(frozen=True)
class TeacherEntry:
    """How a teacher comes about.

    `train(shards, truth, config, seed, log)` returns a trained network and its facts, `build(config, facts)` an untrained one.
    """

    train: Train
    build: Callable[["LabelingConfig", Facts], nn.Module]


@dataclass(frozen=True)
class LabelerEntry:
    """`build(network, config)` makes the labeler; `network` is that of `teacher`, or None when it needs none."""

    modality: str
    teacher: str | None
    build: Callable[[Any, "LabelingConfig"], Labeler]


TEACHERS: dict[str, TeacherEntry] = {
    "scene": TeacherEntry(train_scene_network, lambda config, facts: SceneNetwork(config.scene)),
    "clip": TeacherEntry(train_mini_clip, build_mini_clip),
}

LABELERS: dict[str, LabelerEntry] = {
    "scene_depth": LabelerEntry("depth", "scene", lambda network, config: SceneDepth(network)),
    "scene_segmentation": LabelerEntry("semseg", "scene", lambda network, config: SceneSegmentation(network)),
    "scene_boxes": LabelerEntry("det", "scene", lambda network, config: SceneBoxes(network)),
    "mini_clip": LabelerEntry("clip", "clip", lambda network, config: network),
    "normals_from_depth": LabelerEntry("normal", None, lambda _, config: NormalsFromDepth(config.normals, config.camera)),
    # those that 4M-21 adds, and a global feature like its own; the default leaves them out
    "mini_clip_global": LabelerEntry("clip_global", None, lambda _, config: GlobalClip()),
    "canny_edges": LabelerEntry("canny_edge", None, lambda _, config: CannyEdges(config.canny)),
    "color_palettes": LabelerEntry("color_palette", None, lambda _, config: ColorPalettes(config.palette)),
    "image_metadata": LabelerEntry("metadata", None, lambda _, config: ImageMetadata(config.metadata)),
}


def register(name: str, entry: LabelerEntry) -> None:
    """Add a labeler; raises ValueError when the name is taken."""
    if name in LABELERS:
        raise ValueError(f"Two labelers are called {name!r}. Give one of them another name.")
    LABELERS[name] = entry


def labeler(name: str) -> LabelerEntry:
    """Return the entry of a labeler; raises ValueError that suggests the nearest name."""
    if name not in LABELERS:
        raise ValueError(unknown_name("labeler", name, LABELERS, "Add it in fourfold/labelers/registry.py."))
    return LABELERS[name]
