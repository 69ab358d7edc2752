"""The training step of 4M-7 Ti: seven modalities with released vocabularies, budgets of 128/128 tokens, batch 16, AdamW.

    OMP_NUM_THREADS=2 python benchmarks/step.py                 # against the plain computation, and shares of the step
    OMP_NUM_THREADS=2 python benchmarks/step.py --memory        # peak memory against the plain computation
    OMP_NUM_THREADS=2 python benchmarks/step.py --growth        # step time over batch and budget, and its deviation from a line
    OMP_NUM_THREADS=2 python benchmarks/step.py --profile       # which operations take the time
    OMP_NUM_THREADS=2 python benchmarks/step.py --count --precision bf16    # what is copied and filled: the same on any CPU
    python benchmarks/step.py --size B --padding                # empty slots, and what attention computes for them

Ours and the plain computation (`reference_way.py`) alternate. Ratios compare the best times of one run, which other processes
disturb least. Prints one JSON line, then the same as a table.
"""

import argparse
import json
import math
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from machine import describe, peak_gflops
from reference_way import WholeSamples, reference_loss
from torch import nn

from fourfold.masking.config import MaskingConfig
from fourfold.masking.masker import Masker
from fourfold.masking.spans import SentinelIds
from fourfold.modalities import TOKEN_MODALITIES
from fourfold.model.batch import MaskedBatch
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.flops import attention_flops, forward_flops, training_flops
from fourfold.model.fourm import FourM
from fourfold.seeds import numpy_generator
from fourfold.training.optimizers import OptimizerConfig, OptimizerSet, build_optimizer
from fourfold.training.precision import Precision, autocast, subnormals_as_zero

SEVEN = ("rgb", "tok_rgb", "tok_depth", "tok_normal", "tok_semseg", "tok_clip", "caption", "det")  # RGB as pixels and as tokens
CPU = torch.device("cpu")
COUNTED = ("copy_", "_to_copy", "fill_", "add", "mul_")  # operations that only move memory, or little more
SENTINELS = tuple(range(5, 204))  # as in the released text tokenizer


def released_config(size: str) -> ModelConfig:
    """Return 4M-7 at 224 pixels."""
    modalities = []
    for name in SEVEN:
        entry = TOKEN_MODALITIES[name]
        positions = {"max_length": entry.released_tokens} if entry.kind == "sequence" else {"grid": (14, 14)}
        modalities.append(ModalityConfig(name=name, kind=entry.kind, vocabulary_size=entry.released_vocabulary, **positions))
    return ModelConfig.model_validate({"size": size, "modalities": modalities})


class Samples:
    """Random samples with all tokens, and masked batches of them."""

    def __init__(self, config: ModelConfig, count: int, budget: int) -> None:
        self.masker = Masker(MaskingConfig(input_tokens=budget, target_tokens=budget), config, SentinelIds(3, SENTINELS))
        rng = numpy_generator(0, "benchmark")
        self.pixels = rng.integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)
        self.tokens = {}
        for modality in config.modalities:
            if modality.kind != "pixels":
                ids = rng.integers(204, modality.vocabulary_size, (count, modality.num_positions))
                if modality.kind == "sequence":  # captions of 8 to 40 words, up to 12 boxes
                    ids *= np.arange(ids.shape[1]) < rng.integers(8, 60, (count, 1))
                self.tokens[modality.name] = ids.astype(np.int16)

    def masked(self, seed: int = 0) -> MaskedBatch:
        """Mask all samples as one batch."""
        return self.masker(self.tokens, self.pixels, numpy_generator(seed, "masking"))


class Step:
    """One model, one optimizer and one batch, and the parts of a step."""

    def __init__(self, config: ModelConfig, size: int, budget: int, precision: Precision) -> None:
        self.config, self.precision = config, precision
        self.model = FourM(config)
        self.samples = Samples(config, size, budget)
        self.batch = self.samples.masked()
        self.whole = WholeSamples.of(config, self.batch)
        self.optimizer = build_optimizer(self.model, OptimizerConfig(kind="adamw", learning_rate=1e-4))

    def loss(self) -> None:
        with autocast(self.precision, CPU):
            total = self.model(self.batch).total
        total.backward()

    def reference_loss(self) -> None:
        with autocast(self.precision, CPU):
            total = reference_loss(self.model, self.batch, self.whole)
        total.backward()

    def update(self) -> None:
        update(self.optimizer)

    def ours(self) -> None:
        self.loss()
        self.update()

    def reference(self) -> None:
        self.reference_loss()
        self.update()


def update(optimizer: OptimizerSet) -> None:
    nn.utils.clip_grad_norm_(optimizer.parameters, 1.0, foreach=True)
    optimizer.step(1e-6)


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(step: Step, repeats: int) -> dict[str, list[float]]:
    """Return seconds of each part. Parts alternate, so that a slow moment affects all of them."""
    step.ours()
    names = ("forward_backward", "update", "masking", "reference", "reference_update")
    found: dict[str, list[float]] = {name: [] for name in names}
    for seed in range(repeats):
        found["forward_backward"].append(timed(step.loss))
        found["update"].append(timed(step.update))
        found["masking"].append(timed(lambda seed=seed: step.samples.masked(seed)))
        found["reference"].append(timed(step.reference_loss))
        found["reference_update"].append(timed(step.update))
    return found


def check_same_loss(step: Step) -> None:
    with torch.no_grad():
        ours, theirs = step.model(step.batch).total, reference_loss(step.model, step.batch, step.whole)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def peak_megabytes(config: ModelConfig, way: str, options: argparse.Namespace) -> float:
    """Return the peak resident memory of a process that takes two steps, with libraries, weights, optimizer and activations."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        step = Step(config, options.batch, options.budget, options.precision)
        getattr(step, way)(), getattr(step, way)()
        os.write(writing, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024).encode())
        os._exit(0)
    os.waitpid(child, 0)
    return float(os.read(reading, 100))


def growth(config: ModelConfig, options: argparse.Namespace) -> dict[str, Any]:
    """Return seconds of a step over batch and over budget, and their deviation from a line without the part of attention.

    Attention is quadratic in the budget; its share of the arithmetic is subtracted. The line has an offset, since tables and
    optimizer cost the same for any batch. It is fitted to four points over the tokens that exist; the largest relative distance
    counts.
    """
    model = FourM(config)
    optimizer = build_optimizer(model, OptimizerConfig(kind="adamw", learning_rate=1e-4))
    shapes = [(size, 128) for size in (4, 8, 16, 32)] + [(16, budget) for budget in (64, 192, 256)]
    batches = {shape: Samples(config, *shape).masked() for shape in shapes}

    def step(batch: MaskedBatch) -> None:
        with autocast(options.precision, CPU):
            total = model(batch).total
        total.backward()
        update(optimizer)

    found: dict[tuple[int, int], list[float]] = {shape: [] for shape in shapes}
    for repeat in range(options.repeats + 1):
        for shape, batch in batches.items():
            seconds = timed(lambda batch=batch: step(batch))
            if repeat:  # the first warms up
                found[shape].append(seconds)
    rows = {shape: _growth_row(config, batches[shape], min(times)) for shape, times in found.items()}
    over = {"batch": [(size, 128) for size in (4, 8, 16, 32)], "budget": [(16, budget) for budget in (64, 128, 192, 256)]}
    deviations = {
        f"deviation_over_{name}": round(deviation_from_line(*zip(*(rows[s]["point"] for s in chosen), strict=True)), 4)
        for name, chosen in over.items()
    }
    table = {
        f"batch_{size}_budget_{budget}_{name}": value for (size, budget), row in rows.items() for name, value in row.items()
    }
    return deviations | {name: value for name, value in table.items() if not name.endswith("point")}


def _growth_row(config: ModelConfig, batch: MaskedBatch, seconds: float) -> dict[str, Any]:
    tokens = int(batch.input_keep_BN.sum() + batch.target_keep_BM.sum())
    share = attention_flops(config, batch) / forward_flops(config, batch)
    rate = training_flops(config, batch) / seconds / 1e9
    row = {"ms": round(1e3 * seconds, 1), "tokens": tokens, "attention_share": round(share, 4), "gflops": round(rate, 1)}
    return row | {"point": (tokens, seconds * (1 - share))}


def deviation_from_line(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the largest relative distance of points from the line that fits them best in relative terms."""
    x_P, y_P = np.asarray(x, float), np.asarray(y, float)
    terms_PK = np.stack([np.ones_like(x_P), x_P], axis=1) / y_P[:, None]
    line_K = np.linalg.lstsq(terms_PK, np.ones_like(y_P), rcond=None)[0]
    return float(np.abs(terms_PK @ line_K - 1).max())


def memory(config: ModelConfig, options: argparse.Namespace) -> dict[str, Any]:
    ours, reference = (peak_megabytes(config, way, options) for way in ("ours", "reference"))
    return {
        "peak_megabytes": round(ours),
        "reference_way_peak_megabytes": round(reference),
        "memory_ratio": round(ours / reference, 2),
    }


def measured(config: ModelConfig, options: argparse.Namespace) -> dict[str, Any]:
    step = Step(config, options.batch, options.budget, options.precision)
    check_same_loss(step)
    parts = {name: min(values) for name, values in compare(step, options.repeats).items()}
    seconds = parts["forward_backward"] + parts["update"]
    theirs = parts["reference"] + parts["reference_update"]
    rate, peak = training_flops(config, step.batch) / seconds / 1e9, peak_gflops()
    return {
        "samples_per_second": round(options.batch / seconds, 2),
        "reference_way_samples_per_second": round(options.batch / theirs, 2),
        "ratio": round(theirs / seconds, 2),
        "gflops": round(rate, 1),
        "peak_gflops": round(peak, 1),
        "share_of_peak": round(rate / peak, 3),
        "update_share": round(parts["update"] / seconds, 3),
        "masking_share": round(parts["masking"] / (seconds + parts["masking"]), 4),
        **{f"{name}_ms": round(1e3 * value, 1) for name, value in parts.items()},
    }


def profile(config: ModelConfig, options: argparse.Namespace) -> None:
    step = Step(config, options.batch, options.budget, options.precision)
    step.ours()
    with torch.profiler.profile(record_shapes=True) as found:
        step.ours(), step.ours()
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=50))
    print(
        found.key_averages(group_by_input_shape=True).table(
            sort_by="self_cpu_time_total", row_limit=30, max_shapes_column_width=70
        )
    )


def count(config: ModelConfig, options: argparse.Namespace) -> dict[str, Any]:
    """Return how often forward and backward copy, convert, fill or add whole tensors, and how many numbers, in millions."""
    step = Step(config, options.batch, options.budget, options.precision)
    step.loss()  # gradients of the first step are new memory; those of later ones are dropped by the update
    step.optimizer.zero_grad()
    with torch.profiler.profile(record_shapes=True) as found:
        step.loss()
    rows: dict[str, Any] = {}
    table = list(step.model.target_tokens.weight_VD.shape)
    for name in COUNTED:
        sizes = [event.input_shapes for event in found.events() if event.name == f"aten::{name}" and event.input_shapes]
        sizes = [shapes for shapes in sizes if name != "add" or not shapes[-1]]  # others have their output as argument
        rows[f"{name}_calls"] = len(sizes)
        rows[f"{name}_million_numbers"] = round(sum(math.prod(shapes[0]) for shapes in sizes) / 1e6, 1)
        rows[f"{name}_of_whole_tables"] = sum(table in shapes for shapes in sizes)
    return rows


def padding(config: ModelConfig, options: argparse.Namespace) -> dict[str, Any]:
    """Return the shares of empty slots, and the shares of attention and of its empty slots in the arithmetic of a step.

    Attention computes all slots; everything else computes those that hold a token.
    """
    batch = Samples(config, options.batch, options.budget).masked()
    full = replace(
        batch,
        input_modality_BN=torch.zeros_like(batch.input_modality_BN),
        target_modality_BM=torch.zeros_like(batch.target_modality_BM),
    )
    used, computed = attention_flops(config, batch), attention_flops(config, full)
    total = forward_flops(config, batch) - used + computed
    return {
        "empty_inputs_share": round(1 - float(batch.input_keep_BN.float().mean()), 4),
        "empty_targets_share": round(1 - float(batch.target_keep_BM.float().mean()), 4),
        "attention_share": round(computed / total, 4),
        "empty_attention_share": round((computed - used) / total, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="Ti")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--budget", type=int, default=128, help="tokens in, and out")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--padding", action="store_true")
    options = parser.parse_args()
    config = released_config(options.size)
    with subnormals_as_zero():
        if options.profile:
            return profile(config, options)
        ways = {"growth": growth, "memory": memory, "count": count, "padding": padding}
        found = next((way for name, way in ways.items() if getattr(options, name)), measured)(config, options)
    about = {"size": options.size, "batch": options.batch, "budget": options.budget, "precision": options.precision}
    machine = describe()
    print(json.dumps({"benchmark": "step", **about, **machine, **found}))
    print("\n".join(f"{name:<36} {value}" for name, value in {**about, **machine, **found}.items()))
    return None


if __name__ == "__main__":
    main()
