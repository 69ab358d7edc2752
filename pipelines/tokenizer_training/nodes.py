"""Nodes of tokenizer training: train, measure, tokenize all shards."""

from pathlib import Path

from fourfold.data.shards import ShardSet
from fourfold.data.work_split import WorkSplit
from fourfold.metric_log import MetricLog
from fourfold.tokenizers.config import TokenizersConfig
from fourfold.tokenizers.measures import measure_tokenizers
from fourfold.tokenizers.pretokenizing import pretokenize
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.tokenizers.training.tokenizer_set import train_tokenizers
from fourfold.training.run_context import RunContext

TOKENIZED_SPLITS = ("train", "val")  # not test: evaluation starts from pixels and text


def train_all_tokenizers(
    shards: ShardSet, labels: ShardSet, tokenizing: TokenizersConfig, seed: int, tokenizers_folder: Path, log: MetricLog
) -> Path:
    """Train a VQ-VAE per dense modality and WordPiece for text; return their folder."""
    train_tokenizers(shards, labels, tokenizing, RunContext(seed, tokenizers_folder, log))
    return tokenizers_folder


def measure_all_tokenizers(tokenizers: TokenizerSet, shards: ShardSet, labels: ShardSet) -> dict[str, float]:
    """Compare decoded tokens with their inputs on `val`."""
    return measure_tokenizers(tokenizers, shards, labels, "val")


def tokenize_shards(
    shards: ShardSet,
    labels: ShardSet,
    tokenizers: TokenizerSet,
    tokenizing: TokenizersConfig,
    seed: int,
    tokens_folder: Path,
    work_split: tuple[int, int],
) -> ShardSet:
    """Tokenize every modality of every sample, or of this process's share of the shards, once."""
    context = RunContext(seed, tokens_folder)
    return pretokenize(
        shards, labels, tokenizers, tokenizing.crops, context, splits=TOKENIZED_SPLITS, work_split=WorkSplit(*work_split)
    )
