"""The training step of the default `make run`: its share of the machine's float32 peak, its parts, and a busy machine.

    OMP_NUM_THREADS=2 python benchmarks/default_step.py             # share of the peak, and milliseconds of each part
    OMP_NUM_THREADS=2 python benchmarks/default_step.py --busy      # also beside a process that keeps one core busy
    OMP_NUM_THREADS=2 python benchmarks/default_step.py --profile   # which operations take the time

A step is forward, backward, clipping, Muon and AdamW, with the settings of `conf/base/parameters.yml`, on random samples
that are masked as in the default run. Its time is the median of all repeats. `gflops` counts the matrix products of the model
(forward and backward, tokens that exist only) and divides by the time of the whole step: the optimizer's own arithmetic, for
Muon nearly half of the model's, takes time but does not count. `peak_gflops` is the best of a large float32 product on the same
threads in the same run, measured before and after the steps.

The steps run as in the default run: the batch is shared by processes with one thread each. The parts below them are those of a
single process with all threads: CPU milliseconds, the second lowest of the repeats, which
other processes disturb less.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import yaml
from machine import describe, milliseconds, peak_gflops
from model import small_config
from torch import nn

from fourfold.masking.masker import Masker
from fourfold.masking.spans import SentinelIds
from fourfold.model.config import ModelConfig
from fourfold.model.flops import training_flops
from fourfold.model.fourm import FourM
from fourfold.pretraining.config import PretrainConfig
from fourfold.pretraining.step_loss import StepLoss
from fourfold.seeds import numpy_generator
from fourfold.training.optimizers import build_optimizer
from fourfold.training.parallel import ParallelModel
from fourfold.training.performance import Meter
from fourfold.training.precision import autocast, resolved_precision, subnormals_as_zero
from fourfold.training.process_group import ProcessGroup
from fourfold.training.replicas import ReplicatedOptimizer, number_of_replicas, replicas_of

PARAMETERS = Path(__file__).parents[1] / "conf" / "base" / "parameters.yml"
CPU = torch.device("cpu")
MASKED_AT_ONCE = 64  # samples, as in the loader
SENTINELS = tuple(range(5, 40))
BUSY_SECONDS = 60  # the busy process ends after that, even if this one is killed


def default_settings() -> tuple[PretrainConfig, ModelConfig]:
    """Return the pretraining settings of the default run, and its model with the modalities and vocabularies of that run."""
    settings = PretrainConfig.model_validate(yaml.safe_load(PARAMETERS.read_text(encoding="utf-8"))["pretraining"])
    return settings, small_config(**settings.model.model_dump())


def random_samples(config: ModelConfig, count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return complete samples: full grids, sequences of a third to all of their length, and pixels."""
    rng = numpy_generator(0, "benchmark")
    tokens = {}
    for modality in config.modalities:
        if modality.kind == "pixels":
            continue
        length = modality.num_positions - 3 * (modality.kind == "sequence")
        ids = rng.integers(SENTINELS[-1] + 1, modality.vocabulary_size, (count, length))
        if modality.kind == "sequence":
            ids *= np.arange(length) < rng.integers(length // 3, length + 1, (count, 1))
        tokens[modality.name] = ids.astype(np.int16)
    height, width = config.pixel_sizes["rgb"]
    return tokens, rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


class DefaultStep:
    """Model, optimizer and batches of the default run, and the parts of a step."""

    def __init__(self) -> None:
        self.settings, self.config = default_settings()
        self.model = FourM(self.config, 0)
        self.optimizer = build_optimizer(self.model, self.settings.optimizer)
        parallel = ParallelModel(self.model, ProcessGroup())
        self.loss = StepLoss(parallel, self.config, self.settings, CPU, Meter(CPU))
        self.masker = Masker(self.settings.masking, self.config, SentinelIds(3, SENTINELS))
        self.samples = random_samples(self.config, MASKED_AT_ONCE)
        masked, size = self.masked(), self.settings.batch_size
        self.batches = [masked[first : first + size] for first in range(0, MASKED_AT_ONCE, size)]

    def masked(self) -> Any:
        """Mask all samples as one batch."""
        return self.masker(*self.samples, numpy_generator(0, "masking"))

    def forward_backward(self, index: int = 0) -> None:
        """Compute the gradients of one batch."""
        with autocast(self.settings.precision, CPU):
            loss = self.model(self.batches[index % len(self.batches)]).total
        loss.backward()

    def clip(self) -> None:
        """Clip the gradients as the training loop does."""
        nn.utils.clip_grad_norm_(self.optimizer.parameters, self.settings.loop.clip_norm or 1.0, foreach=True)

    @contextmanager
    def steps(self) -> Iterator[Callable[[int], None]]:
        """Return what does everything that a step of the training loop does to the weights, at a negligible learning rate."""
        count = number_of_replicas(self.model, CPU, self.settings.batch_size)
        with replicas_of(self.model, self.optimizer, self.loss.of_part, count) as self.loss.replicas:
            optimizer = ReplicatedOptimizer(self.optimizer, self.loss.replicas) if self.loss.replicas else self.optimizer

            def step(index: int) -> None:
                loss = self.loss(self.batches[index % len(self.batches)], index)
                if isinstance(loss, tuple):
                    loss[0].backward()
                self.clip()
                optimizer.step(1e-6)

            yield step

    @property
    def flops(self) -> float:
        """The matrix products of a step: the mean over the batches."""
        return sum(training_flops(self.config, batch) for batch in self.batches) / len(self.batches)


def step_seconds(work: DefaultStep, repeats: int) -> float:
    """Return the median wall time of a step."""
    times = []
    with work.steps() as step:
        for index in range(repeats + 2):
            began = time.perf_counter()
            step(index)
            times.append(time.perf_counter() - began)
    return median(times[2:])  # the first two warm up


@contextmanager
def busy_process(seconds: float = BUSY_SECONDS) -> Iterator[None]:
    """Keep one core busy with another process meanwhile, `seconds` at most."""
    code = f"import time\nend = time.time() + {seconds}\nwhile time.time() < end: sum(range(10**6))"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(0.3)  # the interpreter has started
        yield
    finally:
        process.kill()
        process.wait()


def measure(work: DefaultStep, repeats: int, busy: bool) -> dict[str, Any]:
    """Return the report."""
    peak, seconds = peak_gflops(), step_seconds(work, repeats)
    peak = max(peak, peak_gflops())
    rate = work.flops / seconds / 1e9
    report: dict[str, Any] = {
        "precision": resolved_precision(work.settings.precision, CPU),
        "step_ms": round(1e3 * seconds, 1),
        "samples_per_second": round(work.settings.batch_size / seconds, 1),
        "gflops": round(rate, 1),
        "peak_gflops": round(peak, 1),
        "share_of_peak": round(rate / peak, 3),
    }
    if busy:
        with busy_process():
            busy_seconds = step_seconds(work, repeats)
        report |= {"busy_step_ms": round(1e3 * busy_seconds, 1), "busy_ratio": round(busy_seconds / seconds, 2)}
    return report | parts(work)


def parts(work: DefaultStep) -> dict[str, float]:
    """Return CPU milliseconds of each part of a step; masking is that of one batch."""
    pieces: dict[str, Callable[[], Any]] = {
        "masking": work.masked,
        "forward_backward": work.forward_backward,
        "clipping": work.clip,
        **{name: lambda rule=rule: rule.step(1e-6) for name, rule in work.optimizer.rules.items()},
    }
    spent = {name: milliseconds(piece, 8) for name, piece in pieces.items()}
    spent["masking"] /= len(work.batches)
    return {f"{name}_cpu_ms": round(value, 2) for name, value in spent.items()}


def profile(work: DefaultStep) -> None:
    """Print the operations that take most of the time."""

    def step(index: int) -> None:
        work.forward_backward(index)
        work.clip()
        work.optimizer.step(1e-6)

    step(0)
    with torch.profiler.profile() as traced:
        for index in range(4):
            step(index)
    print(traced.key_averages().table(sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=50))


def main() -> None:
    """Measure, and print one JSON line and the same as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=24, help="steps of each measurement")
    parser.add_argument("--busy", action="store_true", help="also measure beside a process that keeps one core busy")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    with subnormals_as_zero():
        work = DefaultStep()
        if options.profile:
            return profile(work)
        report = describe() | measure(work, options.repeats, options.busy)
    print(json.dumps({"benchmark": "default_step", **report}))
    print("\n".join(f"{name:<24} {value}" for name, value in report.items()))
    return None


if __name__ == "__main__":
    main()
