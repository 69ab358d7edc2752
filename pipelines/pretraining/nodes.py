"""Nodes of pretraining: train the transformer, assemble the any-to-any model."""

from pathlib import Path
from typing import Any

from fourfold.data.shards import ShardSet
from fourfold.generation.any_to_any import AnyToAny
from fourfold.metric_log import MetricLog
from fourfold.model.files import load_model
from fourfold.pretraining.config import PretrainConfig
from fourfold.pretraining.pretrain import BEST, HISTORY_FILE, METRICS_FILE, pretrain
from fourfold.storage import read_json
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.training.run_context import RunContext


def pretrain_model(
    tokens: ShardSet,
    shards: ShardSet,
    tokenizers: TokenizerSet,
    pretraining: PretrainConfig,
    seed: int,
    pretraining_folder: Path,
    log: MetricLog,
) -> tuple[Path, dict[str, Any], list[dict[str, float]]]:
    """Train 4M on tokens and pixels; return the folder of checkpoints, the metrics of the run and its loss curve."""
    folder = pretrain(tokens, shards, tokenizers, pretraining, RunContext(seed, pretraining_folder, log))
    return folder, read_json(folder / METRICS_FILE), read_json(folder / HISTORY_FILE)


def assemble_model(pretrained: Path, tokenizers: TokenizerSet, any_to_any_folder: Path) -> Path:
    """Save the model with the lowest validation loss and the tokenizers in one self-contained folder."""
    AnyToAny(load_model(pretrained / BEST), tokenizers).save(any_to_any_folder)
    return any_to_any_folder
