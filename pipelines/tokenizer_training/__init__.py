"""Tokenizer training: every label is encoded as a short sequence of integers, and can be decoded."""

from pipelines.tokenizer_training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
