"""The precision of matrix products: bfloat16 where the hardware computes it fast, float32 elsewhere. Weights stay float32."""

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch

logger = logging.getLogger(__name__)

Precision = Literal["auto", "bf16", "fp32"]

# For tests and CI: "1" makes `auto` behave as on hardware with fast bfloat16, "0" as on hardware without. Torch
# computes bfloat16 products on any CPU (slowly, without the instructions), so both cases can be tested anywhere. It is
# an environment variable so that subprocesses follow it.
ASSUME_BF16 = "FOURFOLD_ASSUME_BF16"


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether `device` computes bfloat16 products in hardware; emulated products are slower than float32.

    The environment variable `FOURFOLD_ASSUME_BF16` (1 or 0) overrides the answer.

    Raises:
        ValueError: if the variable is neither 1 nor 0.
    """
    assumed = os.environ.get(ASSUME_BF16, "")
    if assumed:
        if assumed not in ("0", "1"):
            raise ValueError(
                f"{ASSUME_BF16} is {assumed!r}; allowed: 1 (as if bfloat16 were fast), 0, or unset (ask the hardware)."
            )
        return assumed == "1"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def resolved_precision(precision: Precision, device: torch.device) -> Literal["bf16", "fp32"]:
    """Return what `precision` means on `device`: `auto` is bf16 where it is fast, else fp32."""
    if precision != "auto":
        return precision
    return "bf16" if has_fast_bfloat16(device) else "fp32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager:
    """Return the context in which losses are computed."""
    if resolved_precision(precision, device) == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return nullcontext()


def compute_facts(precision: Precision = "auto", device: torch.device | None = None) -> dict[str, Any]:
    """Return what the last bits of results depend on beside code, settings and seed, as JSON values.

    Returns:
        `precision` ("bf16" or "fp32"), `precision_reason`, `device` (name of the GPU, or "cpu"), `instruction_set` (of
        the CPU, as torch uses it), `num_threads` (of torch) and `torch` (its version).
    """
    device = device or default_device()
    resolved = resolved_precision(precision, device)
    if precision != "auto":
        reason = f"the configuration asks for {precision}"
    elif os.environ.get(ASSUME_BF16):
        reason = f"auto, with {ASSUME_BF16}={os.environ[ASSUME_BF16]}"
    else:
        reason = "auto: bfloat16 products are fast here" if resolved == "bf16" else "auto: no fast bfloat16 products here"
    return {
        "precision": resolved,
        "precision_reason": reason,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "instruction_set": _instruction_set(),
        "num_threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def log_compute_facts(description: str, precision: Precision, device: torch.device) -> None:
    """Log one line with precision, its reason, instruction set and threads; call it when a training starts."""
    facts = compute_facts(precision, device)
    where = f"{facts['instruction_set']}, {facts['num_threads']} threads"
    if device.type == "cuda":
        where = f"{facts['device']}; CPU: {where}"
    logger.info("%s: precision %s (%s); %s.", description, facts["precision"], facts["precision_reason"], where)


def _instruction_set() -> str:
    """Return the instruction set that torch's CPU kernels use, e.g. "AVX2" or "AVX512, AVX512_BF16, AMX"."""
    found = [torch.backends.cpu.get_cpu_capability()]
    if torch.cpu._is_avx512_bf16_supported():
        found.append("AVX512_BF16")
    if torch.cpu._is_amx_tile_supported():
        found.append("AMX")
    return ", ".join(found)


@contextmanager
def subnormals_as_zero() -> Iterator[None]:
    """Make the CPU treat numbers below 1.2e-38 as 0 inside the block: in this thread and in worker threads started there.

    A CPU computes such numbers in microcode, and where attention is very peaked, gradients are full of them: a step
    from weights that had grown without weight decay took 508 ms, against 286 ms from fresh weights or inside this block
    (docs/log.md).

    Worker threads keep the mode that held when they started (with torch 2.15, a late switch leaves one of two threads
    with subnormals). For all threads to round alike, a program switches the mode on before its first parallel work
    (`fourfold_ops.hooks.threads`); this block only restores the mode of programs that did not.
    """
    before = _takes_subnormals_as_zero()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _takes_subnormals_as_zero() -> bool:
    return float(torch.full((1,), 1e-39) * 1.0) == 0.0
