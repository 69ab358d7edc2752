"""One generalist against specialists: a network for each task learns from the same labels, and all are compared."""

from pipelines.specialists.pipeline import create_pipeline

__all__ = ["create_pipeline"]
