"""Pretraining of 4M: an encoder–decoder learns to predict any modality from any other."""

from pipelines.pretraining.pipeline import create_pipeline

__all__ = ["create_pipeline"]
