"""Modalities: the table of labels and token modalities, the classes of a segmentation, and the types of metadata."""

from fourfold.modalities.class_table import ClassTable
from fourfold.modalities.table import (
    FOUR_M_7,
    IMAGENET_MEAN,
    IMAGENET_STD,
    LABELS,
    SOURCE_LABELS,
    TOKEN_MODALITIES,
    Label,
    TokenModality,
    base_name,
    label,
    register_modality,
    target_of,
    token_modality,
)

__all__ = [
    "FOUR_M_7",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "LABELS",
    "SOURCE_LABELS",
    "TOKEN_MODALITIES",
    "ClassTable",
    "Label",
    "TokenModality",
    "base_name",
    "label",
    "register_modality",
    "target_of",
    "token_modality",
]
