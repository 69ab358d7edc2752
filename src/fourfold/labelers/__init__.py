"""Pseudo-labeling: train teachers, label all images, and integrate the labels of all labelers."""

from fourfold.labelers.config import IntegrationConfig, LabelingConfig
from fourfold.labelers.integration import integrate_labels
from fourfold.labelers.labeling import label_shards
from fourfold.labelers.measures import measure_teachers
from fourfold.labelers.protocol import Batch, ImageTextEncoder, Labeler, LabelingContext, Teacher, TrainingData
from fourfold.labelers.registry import LABELERS, register
from fourfold.labelers.teachers import TeacherSet, train_teachers

__all__ = [
    "LABELERS",
    "Batch",
    "ImageTextEncoder",
    "IntegrationConfig",
    "Labeler",
    "LabelingConfig",
    "LabelingContext",
    "Teacher",
    "TeacherSet",
    "TrainingData",
    "integrate_labels",
    "label_shards",
    "measure_teachers",
    "register",
    "train_teachers",
]
