"""A finished model is scored on public benchmarks in their official layouts."""

from pipelines.benchmarks.pipeline import create_pipeline

__all__ = ["create_pipeline"]
