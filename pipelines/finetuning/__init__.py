"""Fine-tuning on new tasks with few labels: the pretrained model, the same model from scratch, and a small CNN."""

from pipelines.finetuning.pipeline import create_pipeline

__all__ = ["create_pipeline"]
