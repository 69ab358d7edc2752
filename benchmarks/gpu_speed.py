"""Sections of gpu.py that measure speed and memory: attention, training steps, generation, loading, tokenizers."""

import os
import tempfile
import time
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import generation as captions
import numpy as np
import torch
import torch.nn.functional as F
from gpu_common import BUDGET, TINY_BUDGET, Place, Rows, peak_gib, release
from loading import write_shards
from machine import peak_gflops
from torch import Tensor, nn

from fourfold.data.cursor import Cursor
from fourfold.generation.config import GenerationConfig, TargetConfig
from fourfold.generation.decoding import generate_tokens
from fourfold.model.attention import MASKED
from fourfold.model.batch import MaskedBatch
from fourfold.model.flops import training_flops
from fourfold.pretraining.config import PretrainConfig
from fourfold.pretraining.copies import CopiedBatch, copied_ahead
from fourfold.pretraining.loader import BatchOrder, Reader, TokenLoader, TokenSplit
from fourfold.pretraining.pretrain import compile_blocks
from fourfold.pretraining.step_loss import StepLoss
from fourfold.seeds import numpy_generator, torch_generator
from fourfold.tokenizers.networks.config import VisualTokenizerConfig
from fourfold.tokenizers.training.vqvae import TrainingValues, train_visual_tokenizer
from fourfold.training.optimizers import OptimizerConfig, OptimizerSet, build_optimizer
from fourfold.training.parallel import ParallelModel
from fourfold.training.performance import Meter, peak_flops
from fourfold.training.precision import Precision, autocast
from fourfold.training.process_group import ProcessGroup
from fourfold.training.run_context import RunContext

MEMORY_SHARE = 0.8  # of the card that a batch fills
MAX_BATCH = 2048
COMPILE_SECONDS, OTHERS_SECONDS = 150, 130  # that compiling and measuring a model may need, and what follows `steps`
PRECISION: Precision = "bf16"
KERNELS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")


def attention(place: Place) -> Rows:
    """Return which kernel `scaled_dot_product_attention` chooses with our bias, and the times of all of them, in ms.

    `packed` has the samples end to end, without empty slots (nested tensors), which is another way to leave them out.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    heads, tokens, batch = (2, TINY_BUDGET, 2) if place.is_tiny else (12, BUDGET, 128)
    q, k, v = torch.randn(3, batch, heads, tokens, 64, device=place.device, dtype=torch.bfloat16).unbind()
    keep = torch.rand(batch, 1, 1, tokens, device=place.device) < 0.9
    bias = torch.zeros(keep.shape, device=place.device).masked_fill_(~keep, MASKED).to(q.dtype)
    found: Rows = {}
    for name, mask in (("with_bias", bias), ("without_bias", None)):
        chosen = torch._fused_sdp_choice(q, k, v, mask)
        found[f"{name}/chosen"] = SDPBackend(int(chosen)).name
        work = partial(F.scaled_dot_product_attention, q, k, v, mask)
        for kernel in KERNELS:
            with sdpa_kernel(getattr(SDPBackend, kernel)):
                try:
                    found[f"{name}/{kernel}/ms"] = round(1e3 * place.seconds_of(work, 0.3), 4)
                except RuntimeError:
                    found[f"{name}/{kernel}/ms"] = "not available"
    return found | _packed_attention(place, (q, k, v), keep, bias)


def _packed_attention(place: Place, fused: tuple[Tensor, ...], keep: Tensor, bias: Tensor) -> Rows:
    """Return the time of attention over packed samples in ms, and its largest difference from the one with a bias."""
    kept_BN = keep[:, 0, 0]
    offsets = F.pad(kept_BN.sum(1).cumsum(0), (1, 0))
    rows = [tensor.transpose(1, 2)[kept_BN] for tensor in fused]  # (T, H, K)
    jagged = [torch.nested.nested_tensor_from_jagged(part, offsets).transpose(1, 2) for part in rows]
    packed = F.scaled_dot_product_attention(*jagged).transpose(1, 2).values()
    padded = F.scaled_dot_product_attention(*fused, bias).transpose(1, 2)[kept_BN]
    seconds = place.seconds_of(lambda: F.scaled_dot_product_attention(*jagged), 0.3)
    return {
        "packed/ms": round(1e3 * seconds, 4),
        "packed/empty_share": round(1 - float(kept_BN.float().mean()), 4),
        "packed/max_error": round(float((packed - padded).abs().max()), 5),
    }


def steps(place: Place) -> Rows:
    """Measure training steps of each size with AdamW, in bfloat16, at a batch that fills the card; with and without compile."""
    found: Rows = {}
    peak = peak_flops(place.device) if place.on_gpu else 1e9 * peak_gflops(0.2)
    for size in place.sizes:
        if place.seconds_left < 30:
            found[f"{size}/skipped"] = "no time left"
            continue
        found |= {f"{size}/{name}": value for name, value in _steps_of(place, size, peak or 0.0).items()}
        release(place)
    return found


def _steps_of(place: Place, size: str, peak: float) -> Rows:
    step = _Step(place, size)
    count = _largest_batch(place, step)
    step.batch = place.batch(size, count).to(place.device)
    flops = training_flops(step.model.config, place.batch(size, count))
    release(place)
    found: Rows = {"batch": count}
    whole, update = place.seconds_of(step), place.seconds_of(step.update, 1.0)
    samples = count / whole
    found |= {"ms": round(1e3 * whole, 2), "samples_per_second": round(samples, 1), "peak_gib": peak_gib(place)}
    found |= {"tokens_per_second": round(samples * 2 * (TINY_BUDGET if place.is_tiny else BUDGET))}
    found |= {"optimizer_share": round(update / whole, 4), "mfu_eager": round(flops / whole / peak, 4) if peak else "unknown"}
    found["mfu"] = found["mfu_eager"]
    if place.on_gpu and place.seconds_left > COMPILE_SECONDS + OTHERS_SECONDS:
        began = time.perf_counter()
        try:
            compile_blocks(step.model)
            step()
            found["compile_seconds"] = round(time.perf_counter() - began, 1)
            compiled = place.seconds_of(step)
            found |= {"ms_compiled": round(1e3 * compiled, 2), "peak_gib_compiled": peak_gib(place)}
            found["mfu_compiled"] = round(flops / compiled / peak, 4) if peak else "unknown"
            found["mfu"] = max(found["mfu"], found["mfu_compiled"]) if peak else "unknown"
        except Exception as error:  # the plain step is a result as well
            found["compile_failed"] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return found


class _Step:
    """A training step with AdamW and clipping; the batch may be replaced."""

    def __init__(self, place: Place, size: str) -> None:
        self.place, self.size, self.model = place, size, place.model(size)
        self.optimizer: OptimizerSet = build_optimizer(self.model, OptimizerConfig(kind="adamw", learning_rate=1e-4))
        self.batch: MaskedBatch | None = None

    def __call__(self) -> None:
        assert self.batch is not None
        with autocast(PRECISION, self.place.device):
            loss = self.model(self.batch).total
        loss.backward()
        self.clip_and_update()

    def clip_and_update(self) -> None:
        nn.utils.clip_grad_norm_(self.optimizer.parameters, 1.0, foreach=True)
        self.optimizer.step(1e-3)

    def update(self) -> None:
        """Clip and update with gradients of zero, as large as real ones."""
        for parameter in self.optimizer.parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.clip_and_update()


def _largest_batch(place: Place, step: _Step) -> int:
    """Return the largest batch, a multiple of 16, whose step fits into `MEMORY_SHARE` of the card.

    Memory grows in proportion to the samples, so two small batches tell.
    """
    if not place.on_gpu:
        return 4
    used = {}
    for count in (16, 48):
        torch.cuda.reset_peak_memory_stats(place.device)
        step.batch = place.batch(step.size, count).to(place.device)
        step()
        used[count] = torch.cuda.max_memory_allocated(place.device)
    of_a_sample = max(1.0, (used[48] - used[16]) / 32)
    allowed = MEMORY_SHARE * torch.cuda.get_device_properties(place.device).total_memory
    count = min(MAX_BATCH, max(16, int((allowed - used[16]) / of_a_sample + 16) // 16 * 16))
    while count > 16:
        try:
            step.batch = place.batch(step.size, count).to(place.device)
            step()
            return count
        except torch.cuda.OutOfMemoryError:
            for parameter in step.optimizer.parameters:
                parameter.grad = None
            step.batch = None
            torch.cuda.empty_cache()
            count = count * 3 // 4 // 16 * 16
    return 16


def generation(place: Place) -> Rows:
    """Measure captions from images with caches against recomputing each prefix, and depth in one step."""
    size, batch, tokens, every = ("tiny", 2, 6, 3) if place.is_tiny else ("B", 32, 64, 16)
    model = place.model(size).eval()
    height, width = model.config.pixel_sizes["rgb"]
    pixels = torch.randint(256, (batch, height, width, 3), generator=torch_generator(0, "benchmark")).to(torch.uint8)
    conditions = {"rgb": pixels.to(place.device)}
    config = GenerationConfig(sequences=TargetConfig(max_tokens=tokens))

    def generated(target: str) -> torch.Tensor:
        return generate_tokens(model, conditions, [target], range(batch), config, captions.NEVER)[target]

    cached = place.seconds_of(lambda: generated("caption"), 4.0, warm_up=1)
    written = generated("caption")
    places = range(every // 2, tokens, every)
    recompute = [partial(captions.recomputed_token, model, conditions, written[:, :at]) for at in places]
    same = [bool((work() == written[:, at]).all()) for work, at in zip(recompute, places, strict=True)]
    again = sum(place.seconds_of(work, 0.5, warm_up=1, at_most=5) for work in recompute) * tokens / len(places)
    depth = place.seconds_of(lambda: generated("tok_depth"), 2.0, warm_up=1)
    forward = place.seconds_of(lambda: captions.forward(model, conditions, head=True), 2.0, warm_up=1)
    return {
        "batch": batch,
        "caption_tokens_per_second": round(batch * tokens / cached, 1),
        "caption_ratio": round(again / cached, 2),
        "same_tokens_share": round(sum(same) / len(same), 3),
        "depth_images_per_second": round(batch / depth, 1),
        "depth_ratio_to_forward": round(depth / forward, 3),
        "peak_gib": peak_gib(place),
    }


def loading(place: Place) -> Rows:
    """Train on shards on disk, read and masked by worker processes into pinned memory, copied ahead: the share that waits."""
    size, count, num_steps = (place.sizes[0], 4, 3) if place.is_tiny else ("B", 256, 20)
    model, num_workers = place.model(size), min(8, max(1, (os.cpu_count() or 1) - 1))
    settings = PretrainConfig(batch_size=count, precision=PRECISION if place.on_gpu else "fp32")
    meter = Meter(place.device)
    loss = StepLoss(ParallelModel(model, ProcessGroup()), model.config, settings, place.device, meter)
    optimizer = build_optimizer(model, OptimizerConfig(kind="adamw", learning_rate=1e-4))
    masker = place.masker(model.config)
    with tempfile.TemporaryDirectory() as folder:
        shards, per_shard = (1, 8) if place.is_tiny else (4, 128)
        tokens, images = write_shards(Path(folder), model.config, shards, per_shard, num_crops=2)
        reader = Reader(num_workers=num_workers, pin_memory=place.on_gpu, cache_bytes=0)
        stream = TokenLoader(TokenSplit(tokens, images, "train"), masker, BatchOrder(count, seed=0), reader)
        batches = copied_ahead(stream.batches, place.device)(Cursor())
        next(batches)  # until the workers have started
        waited, began = 0.0, 0.0
        for index in range(num_steps + 2):
            if index == 2:  # after two steps to warm up
                place.wait()
                waited, began = 0.0, time.perf_counter()
            asked = time.perf_counter()
            batch, _ = next(batches)
            waited += time.perf_counter() - asked
            _descend(loss(batch, index), optimizer)
        place.wait()
        seconds = (time.perf_counter() - began) / num_steps
        batches.close()
        alone = TokenLoader(TokenSplit(tokens, images, "train"), masker, BatchOrder(count, seed=0), Reader(cache_bytes=0))
        of_one = place.seconds_of(lambda: list(islice(alone, 1)), 2.0, warm_up=0)
    return {
        "workers": num_workers,
        "batch": count,
        "step_ms": round(1e3 * seconds, 2),
        "share_of_a_step": round(waited / num_steps / seconds, 4),
        "one_process_ms": round(1e3 * of_one, 2),
        "pinned_and_copied_ahead": int(isinstance(batch, CopiedBatch) and batch.host.input_token_BN.is_pinned()),
    }


def tokenizer(place: Place) -> Rows:
    """Measure the training of an RGB tokenizer: 224 pixels, 14 × 14 tokens, the convolutional network with 16,384 codes."""
    side, grid, count = (16, (2, 2), 4) if place.is_tiny else (224, (14, 14), 64)
    images = numpy_generator(0, "benchmark").integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    settings = {"codebook_size": 8 if place.is_tiny else 16384, "batch_size": count, "unquantized_steps": 1, "decoder_steps": 0}
    settings |= {"width": 8, "fine_width": 8} if place.is_tiny else {}

    def seconds(num_steps: int) -> float:
        config = VisualTokenizerConfig.model_validate(settings | {"steps": num_steps})
        began = time.perf_counter()
        train_visual_tokenizer(TrainingValues("rgb", images, grid), config, RunContext(0))
        place.wait()
        return time.perf_counter() - began

    few, many = (2, 3) if place.is_tiny else (4, 24)
    first, longer = seconds(few), seconds(many)
    spent = (longer - first) / (many - few) if longer > first else longer / many  # without the start, if that can be told
    return {
        "batch": count,
        "step_ms": round(1e3 * spent, 2),
        "images_per_second": round(count / spent, 1),
        "peak_gib": peak_gib(place),
    }


def _descend(loss: Any, optimizer: OptimizerSet) -> None:
    loss[0].backward()
    nn.utils.clip_grad_norm_(optimizer.parameters, 1.0, foreach=True)
    optimizer.step(1e-3)
