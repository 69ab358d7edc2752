"""The six stages in order, the benchmarks of a finished model, and its comparison with specialists."""

from kedro.pipeline import Pipeline

from fourfold_ops.hooks.ranks import for_this_process
from pipelines import (
    benchmarks,
    evaluation,
    finetuning,
    ingestion,
    pretraining,
    pseudo_labeling,
    specialists,
    tokenizer_training,
)
from pipelines.plugins import load_named_plugins

STAGES = (ingestion, pseudo_labeling, tokenizer_training, pretraining, finetuning, evaluation)


def register_pipelines() -> dict[str, Pipeline]:
    """Return each stage under its name, all six in order as `__default__`, and pipelines that are no part of them."""
    load_named_plugins()  # Kedro validates the parameters of the nodes with the entries that plug-ins add
    stages = {stage.__name__.rpartition(".")[-1]: stage.create_pipeline() for stage in STAGES}
    others = {"benchmarks": benchmarks.create_pipeline(), "specialists": specialists.create_pipeline()}
    return for_this_process({"__default__": sum(stages.values(), Pipeline([])), **stages, **others})
