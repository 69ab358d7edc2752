"""Training of all tokenizers of a run, one after the other; each is saved as soon as it is complete."""

# N samples

import logging
import shutil
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from fourfold.data.crops import resized
from fourfold.data.shards import ShardSet
from fourfold.metric_log import MetricLog
from fourfold.reuse import claim, fingerprint
from fourfold.storage import write_json
from fourfold.tokenizers.config import TokenizersConfig, is_image
from fourfold.tokenizers.diffusion_decoder import DiffusionDecoder
from fourfold.tokenizers.stored_values import SEGMENTATION, load_values, shards_of
from fourfold.tokenizers.text.tokenizer import TextTokenizer
from fourfold.tokenizers.tokenizer_set import CONFIG_FILE, DIFFUSION_FOLDER, TEXT_FILE, TokenizerSet
from fourfold.tokenizers.training.diffusion import train_diffusion_decoder
from fourfold.tokenizers.training.vqvae import TrainingValues, train_visual_tokenizer
from fourfold.tokenizers.visual_tokenizer import WEIGHTS_FILE, VisualTokenizer
from fourfold.training.run_context import RunContext

logger = logging.getLogger(__name__)
TRAINING_SPLIT = "train"
CHECKPOINTS_FOLDER = "checkpoints"


def train_tokenizers(shards: ShardSet, labels: ShardSet, config: TokenizersConfig, context: RunContext) -> TokenizerSet:
    """Train every tokenizer on the `train` split and return them.

    Tokenizers that `context.folder` already holds for the same data, settings and seed are kept, so a run that is
    killed and started again ends in the same bytes. Processes that torchrun started train together in a folder that all
    of them see; the first one writes.

    Args:
        shards: cleaned samples: rgb and captions.
        labels: all other modalities.
        config: which tokenizers, and their sizes and training.
        context: seed, folder (required) and metric log.
    """
    context = context.joined()
    folder, is_first = context.root, context.processes.is_first
    config = _with_classes(config, labels)
    if is_first:
        inputs = {"shards": shards.digest(), "labels": labels.digest()}
        claim(folder, fingerprint(__name__, inputs=inputs, config=config, seed=context.seed))
    # 1) The text vocabulary
    if is_first and not (folder / TEXT_FILE).exists():
        captions = islice(shards.iterate(TRAINING_SPLIT, ["caption"]), config.text.max_captions)
        TextTokenizer.train((sample["caption"] for sample in captions), config.text).save(folder / TEXT_FILE)
    # 2) A VQ-VAE for each dense label
    for name in config.visual:
        if not context.processes.broadcast((folder / name / WEIGHTS_FILE).exists()):
            _train_vqvae(_training_values(name, shards_of(name, shards, labels), config), config, context)
    # 3) Diffusion decoders, where configured, on the same data
    for name in config.diffusion:
        if not context.processes.broadcast((folder / name / DIFFUSION_FOLDER / WEIGHTS_FILE).exists()):
            _train_decoder(_training_values(name, shards_of(name, shards, labels), config), config, context)
    # 4) The settings come last: `TokenizerSet.load` takes their file as the sign that everything is complete
    if is_first:
        write_json(folder / CONFIG_FILE, config.model_dump(mode="json"))
    context.processes.barrier()
    return TokenizerSet.load(folder)


def _with_classes(config: TokenizersConfig, labels: ShardSet) -> TokenizersConfig:
    """Return the settings with unset classes taken from the labels' class table, if there is a segmentation."""
    is_set = config.num_classes is not None and config.text.object_classes is not None
    if is_set or SEGMENTATION not in labels.modalities(TRAINING_SPLIT):
        return config
    return config.with_classes_of(labels.class_table(TRAINING_SPLIT, SEGMENTATION))


def _training_values(name: str, shards: ShardSet, config: TokenizersConfig) -> TrainingValues:
    """Read the training values of a dense label, resized to the side at which its tokenizer is trained.

    Raises:
        ValueError: that side is not a whole number of tokens.
    """
    values = load_values(shards, TRAINING_SPLIT, name, config.max_training_samples)
    grid = config.grid_of(name)
    if config.trained_side is None or not is_image(name):
        return TrainingValues(name, values, grid, config.num_classes or 0)
    rows, rows_rest = divmod(grid[0] * config.trained_side, values.shape[1])
    columns, columns_rest = divmod(grid[1] * config.trained_side, values.shape[2])
    if rows_rest or columns_rest or not rows or not columns:
        raise ValueError(
            f"{name}: trained_side is {config.trained_side}, which is not a whole number of tokens: an image of "
            f"{values.shape[1]} × {values.shape[2]} pixels has {grid[0]} × {grid[1]} tokens. Choose a multiple of "
            f"{values.shape[1] // grid[0]} pixels."
        )
    return TrainingValues(name, resized(name, values, config.trained_side), (rows, columns), config.num_classes or 0)


def _train_vqvae(data: TrainingValues, config: TokenizersConfig, context: RunContext) -> None:
    start, settings, folder = time.monotonic(), config.visual[data.name], context.root / data.name
    own_context = _own_context(context, folder, data.name, bool(settings.checkpoint_every))
    _save(train_visual_tokenizer(data, settings, own_context), folder, own_context)
    logger.info("%s tokenizer: trained on %d samples in %.0f s.", data.name, len(data.values), time.monotonic() - start)


def _train_decoder(data: TrainingValues, config: TokenizersConfig, context: RunContext) -> None:
    start, settings, folder = time.monotonic(), config.diffusion[data.name], context.root / data.name
    tokenizer, folder = VisualTokenizer.load(folder), folder / DIFFUSION_FOLDER
    own_context = _own_context(context, folder, f"{data.name}/diffusion", bool(settings.checkpoint_every))
    _save(train_diffusion_decoder(tokenizer, data.values, settings, own_context), folder, own_context)
    logger.info("%s diffusion decoder: trained on %d samples in %.0f s.", data.name, len(data.values), time.monotonic() - start)


def _own_context(context: RunContext, folder: Path, prefix: str, keeps_checkpoints: bool) -> RunContext:
    """Return the context of one tokenizer's training: prefixed metrics, and a folder only if it writes checkpoints."""
    checkpoints = folder / CHECKPOINTS_FOLDER if keeps_checkpoints else None
    return replace(context, folder=checkpoints, log=_PrefixedLog(context.log, prefix))


def _save(trained: VisualTokenizer | DiffusionDecoder, folder: Path, context: RunContext) -> None:
    """Let the first process write the result; return on all processes when it is there."""
    if context.processes.is_first:
        trained.save(folder)
        if context.folder:
            shutil.rmtree(context.folder)  # only now: until the weights are complete, a killed run resumes from here
    context.processes.barrier()


class _PrefixedLog:
    """Forwards metrics, figures and files to a log under `<prefix>/<name>`."""

    def __init__(self, log: MetricLog, prefix: str):
        self.log, self.prefix = log, prefix

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.log.log_metrics({f"{self.prefix}/{key}": value for key, value in metrics.items()}, step)

    def log_figure(self, figure: Any, name: str) -> None:
        self.log.log_figure(figure, f"{self.prefix}/{name}")

    def log_file(self, path: Path, name: str) -> None:
        self.log.log_file(path, f"{self.prefix}/{name}")
