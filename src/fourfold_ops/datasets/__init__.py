"""Catalog types. In `conf/base/catalog.yml`, for example: `type: fourfold_ops.datasets.FolderDataset`."""

from fourfold_ops.datasets.files import BytesDataset, JsonDataset, TextDataset
from fourfold_ops.datasets.folders import FolderDataset, WorkspaceDataset
from fourfold_ops.datasets.run_inputs import MetricLogDataset, PlaceDataset, StageSecondsDataset, WorkSplitDataset

__all__ = [
    "BytesDataset",
    "FolderDataset",
    "JsonDataset",
    "MetricLogDataset",
    "PlaceDataset",
    "StageSecondsDataset",
    "TextDataset",
    "WorkSplitDataset",
    "WorkspaceDataset",
]
