"""Sources of images and captions: an extension point with one registered object for each kind of source."""

from fourfold.data.ingestion.sources.cc12m import Cc12mSource
from fourfold.data.ingestion.sources.coco import CocoSource
from fourfold.data.ingestion.sources.folder import FolderSource
from fourfold.data.ingestion.sources.parquet import ParquetSource
from fourfold.data.ingestion.sources.several import SeveralSource
from fourfold.data.ingestion.sources.source import (
    SOURCES,
    AnySourceConfig,
    Drop,
    RawSample,
    SampleStream,
    Source,
    SourceConfig,
    SourceContext,
    SourceSlice,
    TruthTarget,
    register_source,
)
from fourfold.data.ingestion.sources.webdataset import WebdatasetSource

__all__ = [
    "SOURCES",
    "AnySourceConfig",
    "Drop",
    "RawSample",
    "SampleStream",
    "Source",
    "SourceConfig",
    "SourceContext",
    "SourceSlice",
    "TruthTarget",
    "register_source",
]

# Available without a plug-in
for _source in (FolderSource(), WebdatasetSource(), ParquetSource(), CocoSource(), Cc12mSource(), SeveralSource()):
    register_source(_source)
