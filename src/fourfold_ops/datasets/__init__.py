"""Catalog types. In `conf/base/catalog.yml`, for example: `type: fourfold_ops.datasets.FolderDataset`."""

from fourfold_ops.datasets.files import BytesDataset, JsonDataset, TextDataset
from fourfold_ops.datasets.folders import FolderDataset, WorkspaceDataset
from fourfold_ops.datasets.metric_log import MetricLogDataset
from fourfold_ops.datasets.registered_model import RegisteredModelDataset
from fourfold_ops.datasets.work_split import WorkSplitDataset

__all__ = [
    "BytesDataset",
    "FolderDataset",
    "JsonDataset",
    "MetricLogDataset",
    "RegisteredModelDataset",
    "TextDataset",
    "WorkSplitDataset",
    "WorkspaceDataset",
]
