"""The model is scored against exact truth, reported and registered."""

from pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
