"""Evaluation: compare the model with exact truth, write the report and register the model."""

from pipelines.evaluation.pipeline import create_pipeline

__all__ = ["create_pipeline"]
