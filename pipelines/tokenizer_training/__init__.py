"""Every label becomes a short row of integers, and can be turned back."""

from pipelines.tokenizer_training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
