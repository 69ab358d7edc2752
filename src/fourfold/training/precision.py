"""In which precision products are computed: bfloat16 where the hardware has it, float32 elsewhere. Weights stay float32."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch

Precision = Literal["auto", "bf16", "fp32"]


def default_device() -> torch.device:
    """Return the GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether bfloat16 products run in hardware on this device; emulated ones are slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager:
    """Return the context in which losses are computed."""
    wanted = precision == "bf16" or (precision == "auto" and has_fast_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16) if wanted else nullcontext()


@contextmanager
def subnormals_as_zero() -> Iterator[None]:
    """Within it the CPU takes numbers below 1.2e-38 for 0: in this thread, and in worker threads that start meanwhile.

    A CPU computes such numbers in microcode. Where attention is very peaked, gradients are full of them: a step from weights
    that had grown without decay took 1.7 times as long as one from fresh weights (508 and 286 ms), and as long within this;
    with decay there are few (docs/log.md). Workers keep what held when they started (torch 2.15: after a late switch, the half
    of a product that the other of two threads computes still has them). So for all threads to round alike, a program switches
    it on before its first parallel work (`fourfold_ops.hooks.threads`); here that is only undone where it was not so before.
    """
    before = _takes_subnormals_as_zero()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _takes_subnormals_as_zero() -> bool:
    return float(torch.full((1,), 1e-39) * 1.0) == 0.0
