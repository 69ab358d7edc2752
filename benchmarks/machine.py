"""On what a benchmark ran: the part of the machine that its figures depend on."""

import os
import platform
from pathlib import Path
from typing import Any

import torch

# what decides how fast products are, in float32 and in bfloat16
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "bf16", "sve")


def describe() -> dict[str, Any]:
    """CPU, cores, those of FLAGS that it has, threads, torch, and the load: above the number of cores others are at work."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in _cpu_field("flags").split() + _cpu_field("Features").split()],
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1),
    }


def cpu_name() -> str:
    return _cpu_field("model name") or platform.processor()


def _cpu_field(name: str) -> str:
    """The first processor's, empty where the system has no such file or field."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")
