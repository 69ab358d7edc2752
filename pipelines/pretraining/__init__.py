"""One encoder-decoder learns to predict any part of a sample from any other (4M)."""

from pipelines.pretraining.pipeline import create_pipeline

__all__ = ["create_pipeline"]
