"""Pretraining of 4M: any modality from any other, on tokenized shards (4M-7, arXiv 2312.06647 §2)."""

# B batch, M target tokens, E modalities

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from fourfold.data.shards import ShardSet
from fourfold.masking.masker import Masker
from fourfold.masking.spans import SentinelIds
from fourfold.modalities import TOKEN_MODALITIES, base_name
from fourfold.model.batch import PADDING_MODALITY, MaskedBatch
from fourfold.model.config import ArchitectureConfig, ModalityConfig, ModelConfig
from fourfold.model.files import save_model
from fourfold.model.flops import training_flops
from fourfold.model.fourm import FourM
from fourfold.model.layers import DecoderBlock
from fourfold.pretraining.config import ComputeConfig, PretrainConfig
from fourfold.pretraining.loader import BatchOrder, Reader, TokenLoader, TokenSplit, fixed_batches
from fourfold.pretraining.mixture import MixtureLoader, mixture_loader
from fourfold.reuse import claim, fingerprint
from fourfold.seeds import derive_seed
from fourfold.storage import write_json
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.training.checkpoints import load_tensors
from fourfold.training.loop import BEST_FILE, LossFunction, PartialLoss, TrainingSetup, train
from fourfold.training.optimizers import build_optimizer
from fourfold.training.parallel import ParallelModel, whole_tensors
from fourfold.training.performance import Meter
from fourfold.training.precision import Precision, autocast, default_device, log_compute_facts, resolved_precision
from fourfold.training.process_group import ProcessGroup
from fourfold.training.run_context import RunContext
from fourfold.training.state import TrainingState

BEST, LAST = "best", "last"  # model folders, see fourfold.model.files
METRICS_FILE = "metrics.json"
HISTORY_FILE = "history.json"
# EOS, and the two sentinels around a text that is predicted completely
EXTRA_SEQUENCE_TOKENS = 3


def pretrain(tokens: ShardSet, images: ShardSet, tokenizers: TokenizerSet, config: PretrainConfig, run: RunContext) -> Path:
    """Train 4M on split `train` and validate it on `val`.

    A killed run with the same inputs resumes from its newest checkpoint and ends with the same bytes. Processes that
    torchrun started train together, in a folder that all of them see.

    Args:
        tokens: token shards, as in `TokenSplit`.
        images: the images of the same samples.
        tokenizers: the tokenizers that made the tokens; they determine vocabularies and lengths.
        config: what to learn, and where to compute.
        run: seed, folder and metric log.

    Returns:
        The folder of the run, with the model folders `best` (lowest validation loss) and `last`.
    """
    # 1) Resume, or start from scratch. The fingerprint leaves out where to compute, which changes last bits at most, but
    # contains what `precision: auto` means here, which changes more.
    run = run.joined()
    processes, compute, folder = run.processes, config.compute, run.root
    device = default_device()
    if processes.is_first:
        inputs = {"tokens": tokens.digest(), "images": images.digest(), "tokenizers": tokenizers.digest()}
        precision = resolved_precision(config.precision, device)
        learned = config.model_copy(update={"compute": ComputeConfig(), "precision": precision})
        num_threads = torch.get_num_threads()  # another number gives other last bits
        claim(folder, fingerprint(__name__, inputs=inputs, config=learned, seed=run.seed, num_threads=num_threads))
        log_compute_facts("pretraining", config.precision, device)
    processes.barrier()
    # 2) Build model, data and optimizer: pure functions of settings and seed
    model = FourM(model_config(config.model, tokenizers, images), derive_seed(run.seed, "weights")).to(device)
    masker = Masker(config.masking, model.config, sentinel_ids(tokenizers))
    loader = _training_loader(tokens, images, config, masker, run)
    val_batches = [batch.to(device) for batch in _validation_batches(tokens, images, config, masker, run)]
    parallel = _distributed(model, processes, compute)
    meter = Meter(device, None if compute.peak_tflops is None else 1e12 * compute.peak_tflops)
    # 3) Train
    setup = TrainingSetup(
        model,
        _loss_function(parallel, model.config, config, device, meter),
        loader.batches,
        build_optimizer(model, config.optimizer),
        config.num_steps,
        config.schedule,
        lambda: validation_losses(model, val_batches, config.precision),
    )
    state = train(setup, config.loop, run, description="pretraining", meter=meter, profile_steps=compute.profile_steps)
    # 4) Keep the last and the best model
    tensors = whole_tensors(model.state_dict(), processes) if parallel.is_sharded else model.state_dict()
    if processes.is_first:
        _save_models(model.config, tensors, folder, state, config)
    processes.barrier()
    return folder


def model_config(architecture: ArchitectureConfig, tokenizers: TokenizerSet, images: ShardSet | None) -> ModelConfig:
    """Return the configuration of the model: the architecture, with the modalities that tokenizers and images have.

    Raises:
        ValueError: if the patch size does not divide the image.
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
    """Return the ids that masking writes. The first sentinel in use is [S_1], as in 4M's released code."""
    return SentinelIds(tokenizers.text.eos_id, tuple(tokenizers.text.sentinel_ids[1:]))


@torch.no_grad()
def validation_losses(model: FourM, batches: list[MaskedBatch], precision: Precision = "auto") -> dict[str, float]:
    """Return the cross-entropy (nats) per modality, averaged over its target tokens, and their mean as "loss"."""
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
    """Return height and width of the images that the model reads, as stored and resized: `rgb`, `rgb@32`."""
    split = images.splits()[0]
    height, width = images.read(split, [name], images.shard_names(split)[0])[0][name].shape[:2]
    return {name: (height, width)} | {f"{name}@{side}": (side, side) for side in sides}


def _patch_grid(size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    height, width = size
    if height % patch_size or width % patch_size:
        raise ValueError(f"Patches of {patch_size} pixels do not divide images of {height} × {width}. Change patch_size.")
    return height // patch_size, width // patch_size


def _training_loader(
    tokens: ShardSet, images: ShardSet | None, config: PretrainConfig, masker: Masker, run: RunContext
) -> TokenLoader | MixtureLoader:
    """Return the loader of the share of this process of all training batches."""
    order = BatchOrder(config.batch_size, run.seed, config.shards_at_once)
    reader = Reader(
        run.processes.rank,
        run.processes.size,
        config.compute.num_workers,
        config.compute.prefetch,
        pin_memory=default_device().type == "cuda",
        cache_bytes=config.cache_megabytes * 2**20,
    )
    if config.datasets:
        return mixture_loader(tokens, images, config.datasets, masker, order, reader)
    return TokenLoader(TokenSplit(tokens, images, "train"), masker, order, reader)


def _validation_batches(
    tokens: ShardSet, images: ShardSet | None, config: PretrainConfig, masker: Masker, run: RunContext
) -> list[MaskedBatch]:
    """Return the held-out batches, the same on every process; a split smaller than a batch is one batch."""
    order = BatchOrder(max(1, min(config.batch_size, tokens.num_samples("val"))), run.seed, config.shards_at_once)
    loader = TokenLoader(TokenSplit(tokens, images, "val"), masker, order, Reader(cache_bytes=0))
    return fixed_batches(loader, config.validation_samples)


def _distributed(model: FourM, processes: ProcessGroup, compute: ComputeConfig) -> ParallelModel:
    """Return the model on all processes. Blocks are compiled, if that is asked for, before they are sharded."""
    blocks = [*model.encoder, *model.decoder]
    if compute.compile:
        for block in blocks:
            block.compile(dynamic=True)  # the number of rows differs from batch to batch
    # decoder blocks are also called through a method other than forward
    methods: dict[bool, tuple[str, ...]] = {True: ("context_keys_values",), False: ()}
    blocks_with_methods = [(block, methods[isinstance(block, DecoderBlock)]) for block in blocks]
    some_unused = model.vectors is not None or len(model.further_patches) > 0  # some data sets lack vectors or a resolution
    return ParallelModel(model, processes, compute.parallel, blocks_with_methods, some_unused)


def _loss_function(
    model: ParallelModel, architecture: ModelConfig, config: PretrainConfig, device: torch.device, meter: Meter
) -> LossFunction:
    """Return the loss of a step: of the whole batch, or as micro-batches whose losses add up to it.

    Micro-batches are used with several processes or with `micro_batch_size`.
    """
    processes, names = model.processes, architecture.names
    # all processes must compute equally many micro-batches, so their number follows from the largest share
    largest_share = -(-config.batch_size // processes.size)
    num_micro_batches = -(-largest_share // (config.compute.micro_batch_size or largest_share))

    def compute_loss(batch: MaskedBatch, step: int) -> PartialLoss | Iterator[PartialLoss]:
        own_tokens = int(batch.input_keep_BN.sum() + batch.target_keep_BM.sum())
        own_counts = {"tokens": own_tokens, "flops": training_flops(architecture, batch)}
        # the other processes are estimated: their exact counts would cost a message per step
        meter.count(samples=config.batch_size, **{name: count * processes.size for name, count in own_counts.items()})
        if processes.size == 1 and num_micro_batches == 1:
            with autocast(config.precision, device):
                losses = model(batch.to(device, non_blocking=True), config.loss)
            return losses.total, losses.per_modality
        return accumulated(batch)

    def accumulated(batch: MaskedBatch) -> Iterator[PartialLoss]:
        # each micro-batch divides by the number of targets of the whole step, so the terms add up to the loss of the
        # batch
        own_counts_E = torch.bincount(batch.target_modality_BM[batch.target_keep_BM], minlength=len(names))
        totals = dict(zip(names, processes.sum(own_counts_E.to(device)).tolist(), strict=True))
        for index, micro_batch in enumerate(_micro_batches(batch, num_micro_batches)):
            with autocast(config.precision, device):
                is_last = index == num_micro_batches - 1
                losses = model(micro_batch.to(device, non_blocking=True), config.loss, totals, is_last=is_last)
            yield losses.total, losses.per_modality

    return compute_loss


def _micro_batches(batch: MaskedBatch, count: int) -> Iterator[MaskedBatch]:
    """Yield a batch in `count` parts whose sizes differ by at most one sample.

    A part without samples becomes a sample without targets: processes that exchange gradients must all compute `count`
    parts.
    """
    for index in range(count):
        first, end = (batch.batch_size * border // count for border in (index, index + 1))
        if first < end:
            yield batch[first:end]
        else:
            sample = batch[:1]
            yield replace(sample, target_modality_BM=torch.full_like(sample.target_modality_BM, PADDING_MODALITY))


def _save_models(
    architecture: ModelConfig, tensors: dict[str, Tensor], folder: Path, state: TrainingState, config: PretrainConfig
) -> None:
    """Write the model folders and the metrics of the run."""
    model = FourM(architecture)
    for name, weights in ((LAST, tensors), (BEST, load_tensors(folder / BEST_FILE))):
        model.load_state_dict(weights)
        save_model(model, folder / name)
    last = next(metrics for metrics in reversed(state.history) if "validation/loss" in metrics)
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
