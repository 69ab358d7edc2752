"""Images and captions become clean, aligned shards with a manifest."""

from pipelines.ingestion.pipeline import create_pipeline

__all__ = ["create_pipeline"]
