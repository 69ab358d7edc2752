"""Training of all tokenizers of a run; each is saved as soon as it is complete."""

# N samples

import logging
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from fourfold.data.captions import captions_of
from fourfold.data.crops import resized
from fourfold.data.manifests import CAPTION
from fourfold.data.missing import Missing
from fourfold.data.shards import ShardSet
from fourfold.digests import is_intact, write_recorded_json
from fourfold.metric_log import MetricLog
from fourfold.modalities import SOURCE_LABELS
from fourfold.reuse import claim, fingerprint
from fourfold.tokenizers.config import TokenizersConfig, is_image
from fourfold.tokenizers.diffusion_decoder import DiffusionDecoder
from fourfold.tokenizers.networks.config import DiffusionDecoderConfig, VisualTokenizerConfig
from fourfold.tokenizers.stored_values import SEGMENTATION, captions_set, load_values, shards_of
from fourfold.tokenizers.text.tokenizer import TextTokenizer
from fourfold.tokenizers.tokenizer_set import CONFIG_FILE, DIFFUSION_FOLDER, TEXT_FILE, TokenizerSet
from fourfold.tokenizers.training.diffusion import train_diffusion_decoder
from fourfold.tokenizers.training.vqvae import TrainingValues, train_visual_tokenizer
from fourfold.tokenizers.visual_tokenizer import SETTINGS_FILE, WEIGHTS_FILE, VisualTokenizer
from fourfold.training.independent import train_each
from fourfold.training.loop import HISTORY_FILE
from fourfold.training.run_context import RunContext

logger = logging.getLogger(__name__)
TRAINING_SPLIT = "train"
BOXES = "det"
TRAIN_AGAIN = "Training it again."
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
    config = _with_classes(_of_labels(config, labels), labels)
    if is_first:
        inputs = {"shards": shards.digest(), "labels": labels.digest()}
        claim(folder, fingerprint(__name__, inputs=inputs, config=config, seed=context.seed))
    # 1) The text vocabulary
    if is_first and not is_intact(folder, TEXT_FILE):
        samples = captions_set(shards, labels, TRAINING_SPLIT).iterate(TRAINING_SPLIT, [CAPTION])
        present = (sample[CAPTION] for sample in samples if not isinstance(sample[CAPTION], Missing))
        captions = islice((text for value in present for text in captions_of(value)), config.text.max_captions)
        TextTokenizer.train(captions, config.text).save(folder / TEXT_FILE)

    # 2) A VQ-VAE for each dense label
    def train_vqvae(name: str, log: MetricLog) -> None:
        data = _training_values(name, shards_of(name, shards, labels), config)
        _train_vqvae(data, config.visual[name], replace(context, log=log))

    train_each(train_vqvae, [n for n in config.visual if not _is_trained(folder / n, context)], context)

    # 3) Diffusion decoders, where configured, on the same data
    def train_decoder(name: str, log: MetricLog) -> None:
        data = _training_values(name, shards_of(name, shards, labels), config)
        _train_decoder(data, config.diffusion[name], replace(context, log=log))

    missing = [name for name in config.diffusion if not _is_trained(folder / name / DIFFUSION_FOLDER, context)]
    train_each(train_decoder, missing, context)
    # 4) The settings come last: `TokenizerSet.load` takes their file as the sign that everything is complete
    if is_first:
        write_recorded_json(folder, CONFIG_FILE, config.model_dump(mode="json"))
    context.processes.barrier()
    return TokenizerSet.load(folder)


def _is_trained(folder: Path, context: RunContext) -> bool:
    """Return whether a folder holds a trained tokenizer or decoder as it was written; the first process decides."""
    is_first = context.processes.is_first
    return context.processes.broadcast(is_first and is_intact(folder, SETTINGS_FILE, WEIGHTS_FILE, remedy=TRAIN_AGAIN))


def _of_labels(config: TokenizersConfig, labels: ShardSet) -> TokenizersConfig:
    """Return the settings without the labels that nobody made: these modalities are left out of the model.

    Raises:
        ValueError: a modality that is left out is named where it is needed.
    """
    known = {*SOURCE_LABELS, *labels.modalities(TRAINING_SPLIT)}
    sections = ("visual", "diffusion", "resolutions", "sequences", "vectors")
    kept = {section: {n: one for n, one in getattr(config, section).items() if n in known} for section in sections}
    text = config.text if "det" in known else config.text.model_copy(update={"det_tokens": None})
    left_out = sorted({name for section in sections for name in getattr(config, section)} - known)
    left_out += ["det"] if config.text.det_tokens is not None and "det" not in known else []
    if not left_out:
        return config
    logger.info("Left out, because there are no labels: %s.", ", ".join(left_out))
    return config.model_copy(update={**kept, "text": text})


def _with_classes(config: TokenizersConfig, labels: ShardSet) -> TokenizersConfig:
    """Return the settings with unset classes taken from the labels' class table, if there is a segmentation."""
    present = labels.modalities(TRAINING_SPLIT)
    boxes = labels.manifest(TRAINING_SPLIT, BOXES).class_table if BOXES in present else None
    if boxes is not None:  # a detector with other classes than the segmentation
        config = config.with_box_names_of(boxes)
    is_set = config.num_classes is not None and config.text.object_classes is not None
    if is_set or SEGMENTATION not in present:
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


def _train_vqvae(data: TrainingValues, settings: VisualTokenizerConfig, context: RunContext) -> None:
    start, folder = time.monotonic(), context.root / data.name
    with _own_context(context, folder, data.name) as own_context:
        _save(train_visual_tokenizer(data, settings, own_context), folder, own_context)
    logger.info("%s tokenizer: trained on %d samples in %.0f s.", data.name, len(data.values), time.monotonic() - start)


def _train_decoder(data: TrainingValues, settings: DiffusionDecoderConfig, context: RunContext) -> None:
    start, folder = time.monotonic(), context.root / data.name
    tokenizer, folder = VisualTokenizer.load(folder), folder / DIFFUSION_FOLDER
    with _own_context(context, folder, f"{data.name}/diffusion") as own_context:
        _save(train_diffusion_decoder(tokenizer, data.values, settings, own_context), folder, own_context)
    logger.info("%s diffusion decoder: trained on %d samples in %.0f s.", data.name, len(data.values), time.monotonic() - start)


def _own_context(context: RunContext, folder: Path, prefix: str) -> AbstractContextManager[RunContext]:
    """Return the context of one tokenizer's training: prefixed metrics, and checkpoints until its weights are saved."""
    return replace(context, folder=folder, log=_PrefixedLog(context.log, prefix)).scratch(CHECKPOINTS_FOLDER, HISTORY_FILE)


def _save(trained: VisualTokenizer | DiffusionDecoder, folder: Path, context: RunContext) -> None:
    """Let the first process write the result; return on all processes when it is there."""
    if context.processes.is_first:
        trained.save(folder)
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
