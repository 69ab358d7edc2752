"""What the sections of gpu.py share: the device, the time, models, batches and timing."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from default_step import SENTINELS, random_samples
from model import small_config
from step import released_config

from fourfold.masking.config import MaskingConfig
from fourfold.masking.masker import Masker
from fourfold.masking.spans import SentinelIds
from fourfold.model.batch import MaskedBatch
from fourfold.model.config import ModelConfig
from fourfold.model.fourm import FourM
from fourfold.seeds import numpy_generator

Rows = dict[str, Any]
BUDGET = 128  # tokens in, and out, of a sample: 4M-7
TINY_BUDGET = 16
POOL = 256  # different samples of a batch; larger batches repeat them


@dataclass(frozen=True)
class Place:
    """Where and at what size the sections run, and how much time is left."""

    device: torch.device
    deadline: float  # of time.perf_counter
    sizes: tuple[str, ...] = ("Ti", "B", "L")
    is_tiny: bool = False
    pools: dict[str, MaskedBatch] = field(default_factory=dict)  # masked samples by size, made once

    @classmethod
    def of(cls, device: str, seconds: float) -> "Place":
        """Return the place for a device: all sizes on a GPU, one tiny model on a CPU."""
        deadline = time.perf_counter() + seconds
        if device == "cuda":
            return cls(torch.device("cuda", torch.cuda.current_device()), deadline)
        return cls(torch.device("cpu"), deadline, ("tiny",), is_tiny=True)

    @property
    def seconds_left(self) -> float:
        """Time until the deadline."""
        return self.deadline - time.perf_counter()

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    @property
    def name(self) -> str:
        """Name of the device."""
        return torch.cuda.get_device_name(self.device) if self.on_gpu else "cpu"

    @property
    def capability(self) -> str:
        """Compute capability of the GPU."""
        return ".".join(map(str, torch.cuda.get_device_capability(self.device))) if self.on_gpu else ""

    @property
    def memory_gib(self) -> float:
        """Memory of the GPU."""
        return round(torch.cuda.get_device_properties(self.device).total_memory / 2**30, 1) if self.on_gpu else 0.0

    def config(self, size: str) -> ModelConfig:
        """Return 4M-7 at 224 pixels with released vocabularies, or a tiny model."""
        if size == "tiny":
            return small_config(32, encoder_depth=1, decoder_depth=1, num_heads=2)
        return released_config(size)

    def masker(self, config: ModelConfig) -> Masker:
        """Return the masking of 4M-7."""
        budget = TINY_BUDGET if self.is_tiny else BUDGET
        return Masker(MaskingConfig(input_tokens=budget, target_tokens=budget), config, SentinelIds(3, SENTINELS))

    def batch(self, size: str, count: int) -> MaskedBatch:
        """Return a masked batch on the CPU; beyond `POOL` samples, they repeat."""
        if size not in self.pools:
            config = self.config(size)
            samples = random_samples(config, 8 if self.is_tiny else POOL)
            self.pools[size] = self.masker(config)(*samples, numpy_generator(0, "masking"))
        pool = self.pools[size]
        return pool[(torch.arange(count) % pool.batch_size).tolist()]

    def model(self, size: str, **changes: Any) -> FourM:
        """Return a model with random weights on the device."""
        config = self.config(size)
        return FourM(ModelConfig.model_validate(config.model_dump() | changes) if changes else config).to(self.device)

    def wait(self) -> None:
        """Wait until the device has done everything."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def seconds_of(self, work: Callable[[], Any], budget: float = 3.0, warm_up: int = 2, at_most: int = 50) -> float:
        """Return the mean wall time of a call, with the device idle before and after all of them."""
        for _ in range(warm_up):
            work()
        self.wait()
        began, count = time.perf_counter(), 0
        while count < 1 or (not self.is_tiny and count < at_most and time.perf_counter() - began < budget):
            work()
            count += 1
            if count % 5 == 0 or not self.on_gpu:
                self.wait()  # the queue of a GPU must not grow beyond the budget
        self.wait()
        return (time.perf_counter() - began) / count


def release(place: Place) -> None:
    """Free the memory of a section."""
    gc.collect()
    if place.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(place.device)


def peak_gib(place: Place) -> float:
    """Return the peak memory of tensors on the GPU; 0 on a CPU."""
    return round(torch.cuda.max_memory_allocated(place.device) / 2**30, 2) if place.on_gpu else 0.0
