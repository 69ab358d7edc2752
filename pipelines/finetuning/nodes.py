"""Node of fine-tuning: compare the arms."""

from pathlib import Path
from typing import Any

from fourfold.data.shards import ShardSet
from fourfold.generation.any_to_any import AnyToAny
from fourfold.metric_log import MetricLog
from fourfold.training.run_context import RunContext
from fourfold.transfer.arms import PretrainedModel
from fourfold.transfer.config import TransferConfig
from fourfold.transfer.finetuning import finetune
from fourfold.transfer.tasks import TransferData


def compare_arms(
    any_to_any: AnyToAny,
    shards: ShardSet,
    truth: ShardSet,
    finetuning: TransferConfig,
    seed: int,
    finetuning_folder: Path,
    log: MetricLog,
    labels: ShardSet | None = None,
) -> dict[str, Any]:
    """Learn each transfer task from few labels: pretrained, from scratch, and with a small CNN, under one budget."""
    pretrained = PretrainedModel(any_to_any.model, any_to_any.tokenizers.text, any_to_any.digest())
    data = TransferData(shards, truth, labels, finetuning.benchmarks)
    return finetune(pretrained, data, finetuning, RunContext(seed, finetuning_folder, log))
