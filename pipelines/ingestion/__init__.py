"""Ingestion: clean images and captions, and write them as aligned shards with a manifest."""

from pipelines.ingestion.pipeline import create_pipeline

__all__ = ["create_pipeline"]
