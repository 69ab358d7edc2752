"""Pseudo-labeling: teachers are trained, label every picture, and their labels are brought together."""

from fourfold.labelers.config import IntegrationConfig, LabelingConfig
from fourfold.labelers.integration import integrate_labels
from fourfold.labelers.labeling import label_shards
from fourfold.labelers.measures import measure_teachers
from fourfold.labelers.mini_clip.network import ClipTeacher
from fourfold.labelers.protocol import Labeler
from fourfold.labelers.registry import LabelerEntry, labeler, register
from fourfold.labelers.teachers import TeacherSet, train_teachers

__all__ = [
    "ClipTeacher",
    "IntegrationConfig",
    "Labeler",
    "LabelerEntry",
    "LabelingConfig",
    "TeacherSet",
    "integrate_labels",
    "label_shards",
    "labeler",
    "measure_teachers",
    "register",
    "train_teachers",
]
