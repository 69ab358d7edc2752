"""The model is judged on exact truth, registered, and reported."""

from pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
