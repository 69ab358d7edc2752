"""Catalog types. In `conf/base/catalog.yml`, for example: `type: fourfold_ops.datasets.FolderDataset`."""

from fourfold_ops.datasets.files import BytesDataset, JsonDataset, TextDataset
from fourfold_ops.datasets.folders import FolderDataset, WorkspaceDataset
from fourfold_ops.datasets.metric_log import MetricLogDataset
from fourfold_ops.datasets.part import PartDataset
from fourfold_ops.datasets.registered_model import RegisteredModelDataset

__all__ = [
    "BytesDataset",
    "FolderDataset",
    "JsonDataset",
    "MetricLogDataset",
    "PartDataset",
    "RegisteredModelDataset",
    "TextDataset",
    "WorkspaceDataset",
]
