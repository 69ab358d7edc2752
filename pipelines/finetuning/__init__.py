"""The pretrained model learns tasks it never saw from few labels, beside the same model from scratch and a small CNN."""

from pipelines.finetuning.pipeline import create_pipeline

__all__ = ["create_pipeline"]
