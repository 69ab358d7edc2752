"""Node of fine-tuning: compare the arms."""

from pathlib import Path
from typing import Any

from fourfold.data.shards import ShardSet
from fourfold.generation.any_to_any import AnyToAny
from fourfold.metric_log import MetricLog
from fourfold.transfer.config import TransferConfig
from fourfold.transfer.finetuning import finetune


def compare_arms(
    any_to_any: AnyToAny,
    shards: ShardSet,
    truth: ShardSet,
    finetuning: TransferConfig,
    seed: int,
    finetuning_folder: Path,
    log: MetricLog,
) -> dict[str, Any]:
    """Train each new task from few labels, with equal budget: pretrained, from scratch, and a small CNN."""
    return finetune(
        any_to_any.model,
        any_to_any.tokenizers.text,
        shards,
        truth,
        finetuning,
        seed,
        finetuning_folder,
        log,
        digest=any_to_any.digest(),
    )
