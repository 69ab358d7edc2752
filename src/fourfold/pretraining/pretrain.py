"""Pretraining of 4M: any modality from any other, on tokenized shards (4M-7, arXiv 2312.06647 §2)."""

# B batch, M target tokens, E modalities

import logging
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fourfold.data.shards import ShardSet
from fourfold.digests import is_intact, recorded_digests, write_recorded_json
from fourfold.masking.config import MaskingConfig, without
from fourfold.masking.masker import Masker
from fourfold.masking.spans import SentinelIds
from fourfold.modalities import TOKEN_MODALITIES, base_name
from fourfold.model.batch import MaskedBatch
from fourfold.model.config import ArchitectureConfig, ModalityConfig, ModelConfig
from fourfold.model.files import CONFIG_FILE, WEIGHTS_FILE, save_model
from fourfold.model.fourm import FourM
from fourfold.model.layers import DecoderBlock
from fourfold.pretraining.config import ComputeConfig, PretrainConfig
from fourfold.pretraining.copies import copied_ahead
from fourfold.pretraining.initial_tables import add_codes
from fourfold.pretraining.loader import BatchOrder, Reader, TokenLoader, TokenSplit, fixed_batches
from fourfold.pretraining.mixture import MixtureLoader, mixture_loader
from fourfold.pretraining.starting_weights import copy_weights, digest_of, load_source
from fourfold.pretraining.step_loss import StepLoss
from fourfold.reuse import claim, fingerprint
from fourfold.seeds import derive_seed
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.training.checkpoints import load_tensors, save_tensors
from fourfold.training.loop import BEST_FILE, TrainingSetup, train
from fourfold.training.optimizers import build_optimizer
from fourfold.training.parallel import ParallelModel, whole_tensors
from fourfold.training.performance import Meter
from fourfold.training.precision import Precision, autocast, default_device, log_compute_facts, resolved_precision
from fourfold.training.process_group import ProcessGroup
from fourfold.training.replicas import ReplicatedOptimizer, number_of_replicas, replicas_of
from fourfold.training.run_context import RunContext
from fourfold.training.state import TrainingState

logger = logging.getLogger(__name__)
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
    source = None if config.start_from is None else load_source(config.start_from)
    if processes.is_first:
        inputs = {"tokens": tokens.digest(), "images": images.digest(), "tokenizers": tokenizers.digest()}
        inputs |= {} if source is None else {"start": digest_of(source)}
        precision = resolved_precision(config.precision, device)
        learned = config.model_copy(update={"compute": ComputeConfig(), "precision": precision, "start_from": None})
        num_threads = torch.get_num_threads()  # another number gives other last bits
        claim(folder, fingerprint(__name__, inputs=inputs, config=learned, seed=run.seed, num_threads=num_threads))
        _restore_best(folder)
        log_compute_facts("pretraining", config.precision, device)
    processes.barrier()
    # 2) Build model, data and optimizer: pure functions of settings and seed
    model = FourM(model_config(config.model, tokenizers, images), derive_seed(run.seed, "weights")).to(device)
    config = _of_model(config, model.config)
    add_codes(model, tokenizers, config.code_share, run.seed)
    if source is not None:
        copy_weights(source, model)
        del source
    masker = Masker(config.masking, model.config, sentinel_ids(tokenizers))
    loader = _training_loader(tokens, images, config, masker, run)
    val_batches = [batch.to(device) for batch in _validation_batches(tokens, images, config, masker, run)]
    parallel = _distributed(model, processes, compute)
    meter = Meter(device, None if compute.peak_tflops is None else 1e12 * compute.peak_tflops)
    loss, optimizer = StepLoss(parallel, model.config, config, device, meter), build_optimizer(model, config.optimizer)
    # 3) Train
    with replicas_of(model, optimizer, loss.of_part, _num_replicas(model, processes, config)) as loss.replicas:
        setup = TrainingSetup(
            model,
            loss,
            copied_ahead(loader.batches, device),
            ReplicatedOptimizer(optimizer, loss.replicas) if loss.replicas else optimizer,
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


def _of_model(config: PretrainConfig, model: ModelConfig) -> PretrainConfig:
    """Return the settings without the modalities for which the data have no labels; unknown names stay, as errors."""
    maskings = {"the run": config.masking} | {name: one.masking for name, one in config.datasets.items() if one.masking}
    named = {
        name
        for masking in maskings.values()
        for component in masking.components
        for name in (*component.alpha_in, *component.alpha_target)
    }
    left_out = {name for name in named - set(model.names) if name in TOKEN_MODALITIES}
    if not left_out:
        return config
    logger.info("Left out of the masking, because there are no labels: %s.", ", ".join(sorted(left_out)))

    def changed(masking: MaskingConfig) -> MaskingConfig:
        return masking.model_copy(update={"components": without(masking.components, left_out)})

    datasets = {
        name: one.model_copy(update={"masking": changed(one.masking) if one.masking else None})
        for name, one in config.datasets.items()
    }
    return config.model_copy(update={"masking": changed(config.masking), "datasets": datasets})


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
    if compute.compile:
        compile_blocks(model)
    some_unused = model.vectors is not None or len(model.further_patches) > 0  # some data sets lack vectors or a resolution
    return ParallelModel(model, processes, compute.parallel, sharded_blocks(model), some_unused)


def compile_blocks(model: FourM, backend: str = "inductor", dynamic: bool = True) -> None:
    """Compile every block as one graph; a graph break is an error.

    The rest of a step, embeddings and losses, has shapes that depend on the content of a batch and is not compiled.

    Args:
        model: the model.
        backend: of `torch.compile`.
        dynamic: whether the graphs serve any number of rows, which differs from batch to batch.
    """
    for block in [*model.encoder, *model.decoder]:
        block.compile(dynamic=dynamic, fullgraph=True, backend=backend)


def sharded_blocks(model: FourM) -> list[tuple[nn.Module, tuple[str, ...]]]:
    """Return the modules to shard one by one, with the names of their methods beside `forward` that are called from outside."""
    methods: dict[bool, tuple[str, ...]] = {True: ("context_keys_values",), False: ()}
    return [(block, methods[isinstance(block, DecoderBlock)]) for block in [*model.encoder, *model.decoder]]


def _num_replicas(model: FourM, processes: ProcessGroup, config: PretrainConfig) -> int:
    """Return how many processes share each step on a CPU; 1 if the settings ask for something that needs one process."""
    compute = config.compute
    if processes.size > 1 or compute.micro_batch_size or compute.compile or compute.profile_steps:
        return 1
    return number_of_replicas(model, model.device, config.batch_size, compute.replicas)


def _restore_best(folder: Path) -> None:
    """Write damaged weights `best.safetensors` again from the model folder of a finished training."""
    has_model = is_intact(folder / BEST, WEIGHTS_FILE, CONFIG_FILE)
    if has_model and not is_intact(folder, BEST_FILE, remedy=f"Writing it again from {BEST}."):
        save_tensors(load_file(folder / BEST / WEIGHTS_FILE), folder / BEST_FILE)


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
        "about": {"weights": recorded_digests(folder / BEST)[WEIGHTS_FILE]},
    }
    write_recorded_json(folder, HISTORY_FILE, state.history)
    write_recorded_json(folder, METRICS_FILE, metrics)
