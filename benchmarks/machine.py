"""The machine that a benchmark runs on, and how all of them measure time."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# Instructions that decide how fast matrix products are, in float32 and in bfloat16
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "bf16", "sve")
# Variables that decide what threads do while they wait, and so how much a busy machine slows the step down
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")


def describe() -> dict[str, Any]:
    """Return CPU, number of cores, instruction sets of `FLAGS`, threads, torch version and load average.

    A load above the number of cores means that other processes were running.
    """
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in _cpu_field("flags").split() + _cpu_field("Features").split()],
        "threads": torch.get_num_threads(),
        "waiting": {name: os.environ[name] for name in WAITING if name in os.environ},
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1),
    }


def cpu_name() -> str:
    """Return the model name of the CPU."""
    return _cpu_field("model name") or platform.processor()


def _cpu_field(name: str) -> str:
    """Return a field of the first processor in /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")


def milliseconds(work: Callable[[], Any], repeats: int) -> float:
    """Return CPU milliseconds of all threads: the second lowest of the repeats, after one to warm up."""
    work()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(1e3 * (time.process_time() - start))
    return sorted(spent)[1]


def seconds(work: Callable[[], object], budget: float = 4.0) -> float:
    """Return the median wall time of a call within `budget` seconds, after two calls to warm up."""
    work(), work()
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < budget:
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def peak_gflops(budget: float = 1.0) -> float:
    """Return GFLOP/s of a large float32 product, the best within `budget` seconds."""
    size = 1536
    a, b = torch.randn(size, size), torch.randn(size, size)
    a @ b
    best, start = float("inf"), time.perf_counter()
    while time.perf_counter() - start < budget:
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best / 1e9
