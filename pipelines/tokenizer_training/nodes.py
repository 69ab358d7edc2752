"""Nodes of tokenizer training: train, measure, tokenize all shards."""

from pathlib import Path
from typing import Any

from fourfold.data.shards import ShardSet
from fourfold.data.work_split import WorkSplit
from fourfold.labelers.config import LabelingConfig
from fourfold.labelers.on_demand import complete_labels
from fourfold.labelers.teachers import TeacherSet
from fourfold.metric_log import MetricLog
from fourfold.tokenizers.config import TokenizersConfig
from fourfold.tokenizers.measures import measure_tokenizers
from fourfold.tokenizers.pretokenizing import pretokenize
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.tokenizers.training.tokenizer_set import train_tokenizers
from fourfold.training.histories import read_histories
from fourfold.training.run_context import RunContext

TOKENIZED_SPLITS = ("train", "val")  # not test: evaluation starts from pixels and text


def train_all_tokenizers(
    shards: ShardSet,
    labels: ShardSet,
    teachers: TeacherSet | None,
    labeling: LabelingConfig,
    tokenizing: TokenizersConfig,
    seed: int,
    tokenizers_folder: Path,
    log: MetricLog,
) -> Path:
    """Train a VQ-VAE per dense modality and WordPiece for text; return their folder."""
    of_all = complete_labels(labels, shards, teachers, labeling)
    train_tokenizers(shards, of_all, tokenizing, RunContext(seed, tokenizers_folder, log))
    return tokenizers_folder


def measure_all_tokenizers(
    tokenizers: TokenizerSet, shards: ShardSet, labels: ShardSet, tokenizers_folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compare decoded tokens with their inputs on `val`. `about` has the digests of what is measured.

    Returns:
        The metrics, and the curves of the trainings.
    """
    about = {"tokenizers": tokenizers.digest(), "labels": labels.digest()}
    return {**measure_tokenizers(tokenizers, shards, labels, "val"), "about": about}, read_histories(tokenizers_folder)


def tokenize_shards(
    shards: ShardSet,
    labels: ShardSet,
    teachers: TeacherSet | None,
    labeling: LabelingConfig,
    tokenizers: TokenizerSet,
    tokenizing: TokenizersConfig,
    seed: int,
    tokens_folder: Path,
    work_split: tuple[int, int],
    shards_at: str | None = None,
) -> ShardSet:
    """Tokenize every modality of every sample, or of this process's share of the shards, once.

    Labels that are not stored are computed first, a shard at a time.
    """
    of_all, context = complete_labels(labels, shards, teachers, labeling), RunContext(seed, tokens_folder)
    return pretokenize(
        shards,
        of_all,
        tokenizers,
        tokenizing.crops,
        context,
        splits=TOKENIZED_SPLITS,
        work_split=WorkSplit(*work_split),
        shards_at=shards_at,
    )
