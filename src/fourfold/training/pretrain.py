"""Pretraining of 4M: any modality from any other, on tokenised shards (4M-7, arXiv 2312.06647 §2)."""

from collections.abc import Callable
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from fourfold.configuration import Config
from fourfold.data.loader import TokenLoader, fixed_batches
from fourfold.data.mixture import DatasetConfig, MixtureLoader, mixture_loader
from fourfold.data.shards import ShardSet
from fourfold.masking.config import MaskingConfig
from fourfold.masking.masker import Masker
from fourfold.masking.spans import SpecialIds
from fourfold.metric_log import MetricLog
from fourfold.modalities import TOKEN_MODALITIES
from fourfold.model.batch import MaskedBatch
from fourfold.model.config import ArchitectureConfig, ModalityConfig, ModelConfig
from fourfold.model.files import save_model
from fourfold.model.fourm import FourM
from fourfold.model.losses import LossName
from fourfold.seeds import derive_seed
from fourfold.storage import claim, fingerprint, write_json
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.training.checkpoints import load_tensors
from fourfold.training.loop import BEST_FILE, LoopConfig, TrainingState, train
from fourfold.training.optimizers import OptimizerConfig, build_optimizer
from fourfold.training.precision import Precision, autocast, default_device
from fourfold.training.schedules import ScheduleConfig, factor, steps_of_tokens

BEST, LAST = "best", "last"  # model folders, see fourfold.model.files
METRICS_FILE = "metrics.json"
HISTORY_FILE = "history.json"
# EOS and the two sentinels around a text that is asked for whole
EXTRA_SEQUENCE_TOKENS = 3


class PretrainConfig(Config):
    """Model, masking, optimiser and budget. Tokens count inputs and targets of every sample, as in 4M."""

    model: ArchitectureConfig = ArchitectureConfig()
    masking: MaskingConfig = MaskingConfig()
    datasets: dict[str, DatasetConfig] = Field(default={})  # a mixture, by names of your choice; none: split `train`
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossName = "modality"
    batch_size: int = Field(default=16, ge=1)
    total_tokens: int = Field(default=11_500_000, ge=1)
    warmup_tokens: int = Field(default=230_000, ge=0)
    final_factor: float = Field(default=0.0, ge=0, le=1)  # of the learning rates, where the cosine ends
    clip_norm: float | None = Field(default=1.0, gt=0)
    average_decay: float | None = Field(default=None, gt=0, lt=1)  # moving average of the weights; None: off, as in 4M
    precision: Precision = "auto"
    shards_at_once: int = Field(default=8, ge=1)  # read and shuffled together
    cache_megabytes: int = Field(default=512, ge=0)  # of decoded shards
    validation_samples: int = Field(default=400, ge=1)
    log_every: int = Field(default=50, ge=1)  # steps
    validate_every: int = Field(default=1000, ge=1)  # steps
    checkpoint_every: int = Field(default=500, ge=1)  # steps

    @property
    def tokens_per_sample(self) -> int:
        """Input plus target budget."""
        return self.masking.input_tokens + self.masking.target_tokens

    @property
    def num_steps(self) -> int:
        """How many updates the token budget gives."""
        return steps_of_tokens(self.total_tokens, self.batch_size, self.tokens_per_sample)

    @property
    def schedule(self) -> ScheduleConfig:
        """Warm-up and cosine, in steps."""
        warmup_steps = steps_of_tokens(self.warmup_tokens, self.batch_size, self.tokens_per_sample)
        return ScheduleConfig(warmup_steps=warmup_steps, final_factor=self.final_factor)


def pretrain(
    tokens: ShardSet,
    images: ShardSet,
    tokenizers: TokenizerSet,
    config: PretrainConfig,
    seed: int,
    folder: Path,
    log: MetricLog | None = None,
) -> Path:
    """Train 4M on split `train`, validate on `val`, and return `folder` with the model folders `best` and `last`.

    `best` has the lowest validation loss. A run of the same inputs that was killed goes on from its newest checkpoint and ends
    in the same bytes.
    """
    # 1) Resume, or start fresh
    parts = {"tokens": tokens.digest(), "images": images.digest(), "tokenizers": tokenizers.digest()}
    claim(folder, fingerprint(config=config, seed=seed, threads=torch.get_num_threads(), **parts))
    # 2) Model, data and optimiser: pure functions of settings and seed
    device = default_device()
    model = FourM(model_config(config.model, tokenizers, images), derive_seed(seed, "weights")).to(device)
    loader, held_out = _loaders(tokens, images, tokenizers, config, model.config, seed)
    batches = [batch.to(device) for batch in fixed_batches(held_out, config.validation_samples)]
    # 3) Train
    state = train(
        model,
        _loss_function(model, config, device),
        loader.batches,
        build_optimizer(model, config.optimizer),
        lambda step: factor(config.schedule, step, config.num_steps),
        _loop_config(config),
        folder=folder,
        log=log,
        validate=lambda: validation_losses(model, batches, config.precision),
        description="pretraining",
    )
    # 4) Keep the last and the best
    _save_models(model, folder, state, config)
    return folder


def model_config(architecture: ArchitectureConfig, tokenizers: TokenizerSet, images: ShardSet | None) -> ModelConfig:
    """Return the model's configuration: the architecture, with the modalities that tokenizers and images have.

    Raises ValueError when the patches do not divide the image.
    """
    sizes, lengths, widths = tokenizers.vocabulary_sizes(), tokenizers.lengths(), tokenizers.vector_widths
    modalities = []
    for name, entry in TOKEN_MODALITIES.items():
        if entry.kind == "pixels" and images is not None:
            grid = _patch_grid(images, name, architecture.patch_size)
            modalities.append(ModalityConfig(name=name, kind="pixels", grid=grid))
        elif entry.kind == "grid" and name in sizes:
            shape = {"grid": tokenizers.grid, "learned_positions": entry.learned_positions}
            modalities.append(ModalityConfig(name=name, kind="grid", vocabulary_size=sizes[name], **shape))
        elif entry.kind == "sequence" and name in sizes:
            length = lengths[name] + EXTRA_SEQUENCE_TOKENS
            modalities.append(ModalityConfig(name=name, kind="sequence", vocabulary_size=sizes[name], max_length=length))
        elif entry.kind == "vectors" and name in widths:
            modalities.append(ModalityConfig(name=name, kind="vectors", vector_width=widths[name], max_length=lengths[name]))
    return ModelConfig(modalities=tuple(modalities), **architecture.model_dump())


def special_ids(tokenizers: TokenizerSet) -> SpecialIds:
    """Return the ids that masking writes; like 4M it starts at [S_1]."""
    return SpecialIds(tokenizers.text.eos_id, tuple(tokenizers.text.sentinel_ids[1:]))


@torch.no_grad()
def validation_losses(model: FourM, batches: list[MaskedBatch], precision: Precision = "auto") -> dict[str, float]:
    """Return the mean cross-entropy in nats of each modality, over all its target tokens, and their mean as "loss"."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for batch in batches:
        with autocast(precision, model.device):
            losses = model(batch)
        for name, value in losses.per_modality.items():
            sums[name] = sums.get(name, 0.0) + value.double() * losses.num_tokens[name]
            counts[name] = counts.get(name, 0) + losses.num_tokens[name]
    means = {name: float(sums[name]) / counts[name] for name in model.config.names if name in sums}
    return {"loss": sum(means.values()) / len(means), **means}


def _patch_grid(images: ShardSet, name: str, patch_size: int) -> tuple[int, int]:
    split = images.splits()[0]
    height, width = images.read(split, [name], images.shard_names(split)[0])[0][name].shape[:2]
    if height % patch_size or width % patch_size:
        raise ValueError(f"Images of {height} × {width} pixels cannot be cut into patches of {patch_size}. Change patch_size.")
    return height // patch_size, width // patch_size


def _loaders(
    tokens: ShardSet, images: ShardSet, tokenizers: TokenizerSet, config: PretrainConfig, model: ModelConfig, seed: int
) -> tuple[TokenLoader | MixtureLoader, TokenLoader]:
    masker = Masker(config.masking, model, special_ids(tokenizers))
    size, cache = config.shards_at_once, config.cache_megabytes * 2**20
    train_loader: TokenLoader | MixtureLoader
    if config.datasets:
        train_loader = mixture_loader(tokens, images, config.datasets, masker, config.batch_size, seed, size, cache)
    else:
        train_loader = TokenLoader(tokens, images, "train", config.batch_size, masker, seed, size, cache)
    val_batch = max(1, min(config.batch_size, tokens.num_samples("val")))  # a val smaller than a batch is one batch
    return train_loader, TokenLoader(tokens, images, "val", val_batch, masker, seed, size, 0)


def _loss_function(model: FourM, config: PretrainConfig, device: torch.device) -> Callable:
    def compute_loss(batch: MaskedBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        with autocast(config.precision, device):
            losses = model(batch.to(device, non_blocking=True), config.loss)
        return losses.total, losses.per_modality

    return compute_loss


def _loop_config(config: PretrainConfig) -> LoopConfig:
    shared = ("clip_norm", "average_decay", "log_every", "validate_every", "checkpoint_every")
    return LoopConfig(num_steps=config.num_steps, **{name: getattr(config, name) for name in shared})


def _save_models(model: FourM, folder: Path, state: TrainingState, config: PretrainConfig) -> None:
    """Write the model folders, and the figures of the run."""
    save_model(model, folder / LAST)
    best = FourM(model.config)
    best.load_state_dict(load_tensors(folder / BEST_FILE))
    save_model(best, folder / BEST)
    last = next(figures for figures in reversed(state.history) if "validation/loss" in figures)
    metrics = {name: value for name, value in last.items() if name.startswith("validation/")} | {
        "validation/best_loss": state.best_loss,
        "best_step": state.best_step,
        "num_steps": state.step,
        "skipped_steps": state.skipped_steps,
        "samples": state.step * config.batch_size,
        "tokens": state.step * config.batch_size * config.tokens_per_sample,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    write_json(folder / HISTORY_FILE, state.history)
    write_json(folder / METRICS_FILE, metrics)
