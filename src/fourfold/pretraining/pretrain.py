"""Pretraining of 4M: any modality from any other, on tokenized shards (4M-7, arXiv 2312.06647 §2)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fourfold.data.shards import ShardSet
from fourfold.masking.masker import Masker
from fourfold.masking.spans import SentinelIds
from fourfold.metric_log import MetricLog
from fourfold.modalities import TOKEN_MODALITIES, base_name
from fourfold.model.batch import PADDING, MaskedBatch
from fourfold.model.config import ArchitectureConfig, ModalityConfig, ModelConfig
from fourfold.model.files import save_model
from fourfold.model.flops import training_flops
from fourfold.model.fourm import FourM
from fourfold.model.layers import DecoderBlock
from fourfold.pretraining.config import PlaceConfig, PretrainConfig
from fourfold.pretraining.loader import Reader, TokenLoader, fixed_batches
from fourfold.pretraining.mixture import MixtureLoader, mixture_loader
from fourfold.seeds import derive_seed
from fourfold.storage import claim, fingerprint, write_json
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.training.checkpoints import load_tensors
from fourfold.training.config import LoopConfig, lr_multiplier
from fourfold.training.loop import BEST_FILE, LossFunction, Part, train
from fourfold.training.optimizers import build_optimizer
from fourfold.training.parallel import ParallelModel, whole_tensors
from fourfold.training.performance import Meter
from fourfold.training.precision import Precision, autocast, default_device, log_compute_facts
from fourfold.training.process_group import ProcessGroup
from fourfold.training.state import TrainingState

BEST, LAST = "best", "last"  # model folders, see fourfold.model.files
METRICS_FILE = "metrics.json"
HISTORY_FILE = "history.json"
# EOS and the two sentinels around a text that is asked for whole
EXTRA_SEQUENCE_TOKENS = 3


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
    in the same bytes. Processes that torchrun started train together, in a folder that all of them see; the first one writes.
    """
    # 1) Resume, or start fresh
    world, place = ProcessGroup.join(), config.place
    parts = {"tokens": tokens.digest(), "images": images.digest(), "tokenizers": tokenizers.digest()}
    learned = config.model_copy(update={"place": PlaceConfig()})
    if world.is_first:
        claim(folder, fingerprint(config=learned, seed=seed, threads=torch.get_num_threads(), **parts))
    world.wait()
    # 2) Model, data and optimizer: pure functions of settings and seed
    device = default_device()
    if world.is_first:
        log_compute_facts("pretraining", config.precision, device)
    model = FourM(model_config(config.model, tokenizers, images), derive_seed(seed, "weights")).to(device)
    loader, held_out = _loaders(tokens, images, tokenizers, config, model.config, seed, world)
    batches = [batch.to(device) for batch in fixed_batches(held_out, config.validation_samples)]
    parallel = _laid_out(model, world, place)
    meter = Meter(device, None if place.peak_tflops is None else 1e12 * place.peak_tflops)
    # 3) Train
    state = train(
        model,
        _loss_function(parallel, model.config, config, device, meter),
        loader.batches,
        build_optimizer(model, config.optimizer),
        lambda step: lr_multiplier(config.schedule, step, config.num_steps),
        _loop_config(config),
        folder=folder,
        log=log,
        validate=lambda: validation_losses(model, batches, config.precision),
        description="pretraining",
        world=world,
        meter=meter,
    )
    # 4) Keep the last and the best
    tensors = whole_tensors(model.state_dict(), world) if parallel.is_sharded else model.state_dict()
    if world.is_first:
        _save_models(model.config, tensors, folder, state, config)
    world.wait()
    return folder


def model_config(architecture: ArchitectureConfig, tokenizers: TokenizerSet, images: ShardSet | None) -> ModelConfig:
    """Return the model's configuration: the architecture, with the modalities that tokenizers and images have.

    Raises ValueError when the patches do not divide the image.
    """
    sizes, lengths, widths = tokenizers.vocabulary_sizes(), tokenizers.lengths(), tokenizers.vector_widths
    modalities = []
    for name, entry in TOKEN_MODALITIES.items():
        if entry.kind == "pixels" and images is not None:
            for at, size in _image_sizes(images, name, tokenizers.pixel_sides()).items():
                grid = _patch_grid(size, architecture.patch_size)
                modalities.append(ModalityConfig(name=at, kind="pixels", grid=grid))
        elif entry.kind == "grid":
            for at, grid in tokenizers.grids().items():
                if base_name(at) == name:
                    shape = {"grid": grid, "learned_positions": entry.learned_positions}
                    modalities.append(ModalityConfig(name=at, kind="grid", vocabulary_size=sizes[at], **shape))
        elif entry.kind == "sequence" and name in sizes:
            length = lengths[name] + EXTRA_SEQUENCE_TOKENS
            modalities.append(ModalityConfig(name=name, kind="sequence", vocabulary_size=sizes[name], max_length=length))
        elif entry.kind == "vectors" and name in widths:
            modalities.append(ModalityConfig(name=name, kind="vectors", vector_width=widths[name], max_length=lengths[name]))
    return ModelConfig(modalities=tuple(modalities), **architecture.model_dump())


def sentinel_ids(tokenizers: TokenizerSet) -> SentinelIds:
    """Return the ids that masking writes; like 4M it starts at [S_1]."""
    return SentinelIds(tokenizers.text.eos_id, tuple(tokenizers.text.sentinel_ids[1:]))


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


def _image_sizes(images: ShardSet, name: str, sides: tuple[int, ...]) -> dict[str, tuple[int, int]]:
    """Return height and width of the images that the model sees, as stored and at other sides: `rgb`, `rgb@32`."""
    split = images.splits()[0]
    height, width = images.read(split, [name], images.shard_names(split)[0])[0][name].shape[:2]
    return {name: (height, width)} | {f"{name}@{side}": (side, side) for side in sides}


def _patch_grid(size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    height, width = size
    if height % patch_size or width % patch_size:
        raise ValueError(f"Images of {height} × {width} pixels cannot be cut into patches of {patch_size}. Change patch_size.")
    return height // patch_size, width // patch_size


def _loaders(
    tokens: ShardSet,
    images: ShardSet | None,
    tokenizers: TokenizerSet,
    config: PretrainConfig,
    model: ModelConfig,
    seed: int,
    world: ProcessGroup,
) -> tuple[TokenLoader | MixtureLoader, TokenLoader]:
    """Return the training loader, of this process's share, and that of held-out samples, the same on every process."""
    masker = Masker(config.masking, model, sentinel_ids(tokenizers))
    size, cache = config.shards_at_once, config.cache_megabytes * 2**20
    on_gpu = default_device().type == "cuda"
    reader = Reader(world.rank, world.size, config.place.num_workers, config.place.prefetch, pin_memory=on_gpu)
    train_loader: TokenLoader | MixtureLoader
    if config.datasets:
        train_loader = mixture_loader(tokens, images, config.datasets, masker, config.batch_size, seed, size, cache, reader)
    else:
        train_loader = TokenLoader(tokens, images, "train", config.batch_size, masker, seed, size, cache, reader)
    val_batch = max(1, min(config.batch_size, tokens.num_samples("val")))  # a val smaller than a batch is one batch
    return train_loader, TokenLoader(tokens, images, "val", val_batch, masker, seed, size, 0)


def _laid_out(model: FourM, world: ProcessGroup, place: PlaceConfig) -> ParallelModel:
    """Return the model as the processes hold it; its blocks are compiled before they are sharded, if they are to be."""
    blocks = [*model.encoder, *model.decoder]
    if place.compile:
        for block in blocks:
            block.compile(dynamic=True)  # the number of rows differs from batch to batch
    called: dict[bool, tuple[str, ...]] = {True: ("context_keys_values",), False: ()}  # beside forward
    with_methods = [(block, called[isinstance(block, DecoderBlock)]) for block in blocks]
    some_unused = model.vectors is not None or len(model.further_patches) > 0  # a data set may lack them
    return ParallelModel(model, world, place.parallel, with_methods, some_unused)


def _loss_function(
    model: ParallelModel, architecture: ModelConfig, config: PretrainConfig, device: torch.device, meter: Meter
) -> LossFunction:
    """Return the loss of a step: of one batch if a process alone computes it at once, else in parts that add up."""
    world, names = model.world, architecture.names
    largest_share = -(-config.batch_size // world.size)
    num_parts = -(-largest_share // (config.place.micro_batch_size or largest_share))

    def compute_loss(batch: MaskedBatch, step: int) -> Part | Iterator[Part]:
        tokens = int(batch.input_keep_BN.sum() + batch.target_keep_BM.sum())
        shares = {"tokens": tokens, "flops": training_flops(architecture, batch)}
        meter.count(samples=config.batch_size, **{name: value * world.size for name, value in shares.items()})
        if world.size == 1 and num_parts == 1:
            with autocast(config.precision, device):
                losses = model(batch.to(device, non_blocking=True), config.loss)
            return losses.total, losses.per_modality
        return in_parts(batch)

    def in_parts(batch: MaskedBatch) -> Iterator[Part]:
        counts_E = torch.bincount(batch.target_modality_BM[batch.target_keep_BM], minlength=len(names))
        totals = dict(zip(names, world.sum(counts_E.to(device)).tolist(), strict=True))
        for index, part in enumerate(_split(batch, num_parts)):
            with autocast(config.precision, device):
                is_last = index == num_parts - 1
                losses = model(part.to(device, non_blocking=True), config.loss, totals, is_last=is_last)
            yield losses.total, losses.per_modality

    return compute_loss


def _split(batch: MaskedBatch, num_parts: int) -> Iterator[MaskedBatch]:
    """Yield a batch in parts of equal size, give or take a sample; a part without samples is one that has nothing to predict.

    So every process computes as many parts, which those that share gradients must.
    """
    for index in range(num_parts):
        first, behind = (batch.batch_size * border // num_parts for border in (index, index + 1))
        if first < behind:
            yield batch[first:behind]
        else:
            one = batch[:1]
            yield replace(one, target_modality_BM=torch.full_like(one.target_modality_BM, PADDING))


def _loop_config(config: PretrainConfig) -> LoopConfig:
    shared = ("clip_norm", "average_decay", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints")
    given = {name: getattr(config, name) for name in (*shared, "max_skipped_in_a_row")}
    return LoopConfig(num_steps=config.num_steps, profile_steps=config.place.profile_steps, **given)


def _save_models(
    config_of_model: ModelConfig, tensors: dict[str, Tensor], folder: Path, state: TrainingState, config: PretrainConfig
) -> None:
    """Write the model folders, and the figures of the run."""
    model = FourM(config_of_model)
    for name, weights in ((LAST, tensors), (BEST, load_tensors(folder / BEST_FILE))):
        model.load_state_dict(weights)
        save_model(model, folder / name)
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
