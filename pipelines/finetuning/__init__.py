"""The pretrained model learns new tasks from few labels, compared with a fresh model and a small CNN."""

from pipelines.finetuning.pipeline import create_pipeline

__all__ = ["create_pipeline"]
