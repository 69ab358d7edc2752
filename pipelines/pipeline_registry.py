"""The six stages in order."""

from kedro.pipeline import Pipeline

from fourfold_ops.hooks.ranks import for_this_process
from pipelines import evaluation, finetuning, ingestion, pretraining, pseudo_labeling, tokenizer_training

STAGES = (ingestion, pseudo_labeling, tokenizer_training, pretraining, finetuning, evaluation)


def register_pipelines() -> dict[str, Pipeline]:
    """Return each stage under its name, and all six in order as `__default__`."""
    stages = {stage.__name__.rpartition(".")[-1]: stage.create_pipeline() for stage in STAGES}
    return for_this_process({"__default__": sum(stages.values(), Pipeline([])), **stages})
