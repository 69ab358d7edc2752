"""Sources of images and captions: an extension point with one registered object for each kind of source."""

from fourfold.data.ingestion.sources.folder import FolderSource
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

for _source in (FolderSource(), WebdatasetSource()):  # available without a plug-in
    register_source(_source)
