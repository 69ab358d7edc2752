"""Training of all tokenizers of a run, one after the other; each is kept when it is done."""

import logging
import shutil
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fourfold.data.crops import resized
from fourfold.data.shards import ShardSet
from fourfold.metric_log import MetricLog, NullMetricLog
from fourfold.reuse import claim, fingerprint
from fourfold.storage import write_json
from fourfold.tokenizers.config import TokenizersConfig, is_image
from fourfold.tokenizers.diffusion_decoder import DiffusionDecoder
from fourfold.tokenizers.text.tokenizer import TextTokenizer
from fourfold.tokenizers.tokenizer_set import CONFIG_FILE, DIFFUSION_FOLDER, TEXT_FILE, TokenizerSet
from fourfold.tokenizers.training.diffusion import train_diffusion_decoder
from fourfold.tokenizers.training.vqvae import train_visual_tokenizer
from fourfold.tokenizers.visual_tokenizer import WEIGHTS_FILE, VisualTokenizer
from fourfold.training.process_group import ProcessGroup

logger = logging.getLogger(__name__)
TRAINING_SPLIT = "train"
FROM_THE_SOURCE = ("rgb", "caption")  # these lie among the cleaned shards, all else among the labels


def train_tokenizers(
    shards: ShardSet, labels: ShardSet, config: TokenizersConfig, seed: int, folder: Path, log: MetricLog | None = None
) -> TokenizerSet:
    """Train every tokenizer on the `train` split and return them; what `folder` already holds of this very work is kept.

    `shards` holds rgb and captions, `labels` the other modalities. A run that is killed and started again ends in the same
    bytes. Processes that torchrun started train together, in a folder that all of them see; the first one writes.
    """
    world = ProcessGroup.join()
    if world.is_first:
        inputs = {"shards": shards.digest(), "labels": labels.digest()}
        claim(folder, fingerprint(__name__, inputs=inputs, config=config, seed=seed))
    log = log or NullMetricLog()
    # 1) Words
    if world.is_first and not (folder / TEXT_FILE).exists():
        captions = islice(shards.iterate(TRAINING_SPLIT, ["caption"]), config.text.max_captions)
        TextTokenizer.train((sample["caption"] for sample in captions), config.text).save(folder / TEXT_FILE)
    # 2) A VQ-VAE for each dense label
    for name in config.visual:
        if not world.broadcast((folder / name / WEIGHTS_FILE).exists()):
            _train_one(name, shards if name in FROM_THE_SOURCE else labels, config, seed, folder / name, log, world)
    # 3) Second decoders, where they are wanted, on the same data
    for name in config.diffusion:
        if not world.broadcast((folder / name / DIFFUSION_FOLDER / WEIGHTS_FILE).exists()):
            _train_decoder(name, shards if name in FROM_THE_SOURCE else labels, config, seed, folder / name, log, world)
    # 4) The settings come last: their file says that all is there
    if world.is_first:
        write_json(folder / CONFIG_FILE, config.model_dump(mode="json"))
    world.barrier()
    return TokenizerSet.load(folder)


def load_values(shards: ShardSet, split: str, name: str, limit: int) -> np.ndarray:
    """Return the first `limit` values of a dense label of a split, (N, ...) as stored."""
    return np.stack([sample[name] for sample in islice(shards.iterate(split, [name]), limit)])


def _training_values(name: str, shards: ShardSet, config: TokenizersConfig) -> tuple[np.ndarray, tuple[int, int]]:
    """Return stored values (N, ...) of a dense label, at the side that its tokenizer is trained at, and their grid of tokens.

    Raises ValueError when that side is no whole number of tokens.
    """
    values, grid = load_values(shards, TRAINING_SPLIT, name, config.max_training_samples), config.grid_of(name)
    if config.trained_side is None or not is_image(name):
        return values, grid
    rows, rest = divmod(grid[0] * config.trained_side, values.shape[1])
    columns, other_rest = divmod(grid[1] * config.trained_side, values.shape[2])
    if rest or other_rest or not rows or not columns:
        raise ValueError(
            f"{name}: trained_side {config.trained_side} is no whole number of tokens: an image of {values.shape[1]} × "
            f"{values.shape[2]} pixels has {grid[0]} × {grid[1]}."
        )
    return resized(name, values, config.trained_side), (rows, columns)


def _train_one(
    name: str, shards: ShardSet, config: TokenizersConfig, seed: int, folder: Path, log: MetricLog, world: ProcessGroup
) -> None:
    values, grid = _training_values(name, shards, config)
    began = time.monotonic()
    checkpoints = folder / "checkpoints" if config.visual[name].checkpoint_every else None
    tokenizer = train_visual_tokenizer(
        name, values, config.num_classes, grid, config.visual[name], seed, checkpoints, _Prefixed(log, name), world
    )
    _keep(tokenizer, folder, checkpoints, world)
    logger.info("%s tokenizer: trained on %d samples in %.0f s.", name, len(values), time.monotonic() - began)


def _train_decoder(
    name: str, shards: ShardSet, config: TokenizersConfig, seed: int, folder: Path, log: MetricLog, world: ProcessGroup
) -> None:
    values, _ = _training_values(name, shards, config)
    began, settings = time.monotonic(), config.diffusion[name]
    checkpoints = folder / DIFFUSION_FOLDER / "checkpoints" if settings.checkpoint_every else None
    tokenizer = VisualTokenizer.load(folder)
    own_log = _Prefixed(log, f"{name}/diffusion")
    decoder = train_diffusion_decoder(tokenizer, values, settings, seed, checkpoints, own_log, world)
    _keep(decoder, folder / DIFFUSION_FOLDER, checkpoints, world)
    logger.info("%s diffusion decoder: trained on %d samples in %.0f s.", name, len(values), time.monotonic() - began)


def _keep(trained: VisualTokenizer | DiffusionDecoder, folder: Path, checkpoints: Path | None, world: ProcessGroup) -> None:
    """Let the first process write what was trained; return on all when it is there."""
    if world.is_first:
        trained.save(folder)
        if checkpoints:
            shutil.rmtree(checkpoints)  # after the weights are whole: from here on nothing resumes from them
    world.barrier()


class _Prefixed:
    """Hands figures on as `<name>/<figure>`."""

    def __init__(self, log: MetricLog, name: str):
        self.log, self.name = log, name

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.log.log_metrics({f"{self.name}/{key}": value for key, value in metrics.items()}, step)

    def log_figure(self, figure: Any, name: str) -> None:
        self.log.log_figure(figure, f"{self.name}/{name}")

    def log_file(self, path: Path, name: str) -> None:
        self.log.log_file(path, f"{self.name}/{name}")
