"""Whether steps of the default's size give the same bytes on a quiet machine and beside a busy process.

    OMP_NUM_THREADS=2 MKL_NUM_THREADS=2 python benchmarks/determinism.py               # 300 steps twice: minutes
    OMP_NUM_THREADS=2 MKL_NUM_THREADS=2 python benchmarks/determinism.py --steps 20 --precision bf16

Trains the default model twice from the same weights on the same batches: the first time alone, the second time beside a
process that keeps one core busy. After every step it compares a digest of all gradients. Prints one JSON line; the exit
code is 1 if any step differs, and the names of the gradients that differ first are printed.
"""

import argparse
import hashlib
import json
import time

import torch
from default_step import CPU, DefaultStep, busy_process
from machine import describe

from fourfold.training.determinism import deterministic_kernels
from fourfold.training.precision import autocast, subnormals_as_zero

BUSY_SECONDS = 3600  # it ends with this process, or after that if this one is killed
LEARNING_RATE_SHARE = 0.1  # of the peak: weights move, and stay where a step is of the usual speed


def gradient_digests(precision: str, num_steps: int) -> list[dict[str, str]]:
    """Train from the first weights; return a digest of every gradient by name, for each step."""
    work, digests = DefaultStep(), []
    for index in range(num_steps):
        with autocast(precision, CPU):  # type: ignore[arg-type]
            loss = work.model(work.batches[index % len(work.batches)]).total
        loss.backward()
        found = {n: p.grad.numpy().tobytes() for n, p in work.model.named_parameters() if p.grad is not None}
        digests.append({name: hashlib.sha256(content).hexdigest() for name, content in found.items()})
        work.clip()
        work.optimizer.step(LEARNING_RATE_SHARE)
    return digests


def main() -> None:
    """Train twice, compare, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--plain", action="store_true", help="without the switch for deterministic kernels")
    options = parser.parse_args()
    began = time.perf_counter()
    with subnormals_as_zero(), deterministic_kernels(torch.device("cuda") if options.plain else CPU):
        quiet = gradient_digests(options.precision, options.steps)
        with busy_process(BUSY_SECONDS):
            busy = gradient_digests(options.precision, options.steps)
    different = [step for step in range(options.steps) if quiet[step] != busy[step]]
    report = {"precision": options.precision, "steps": options.steps, "different_steps": len(different)}
    report["seconds"] = round(time.perf_counter() - began)
    print(json.dumps({"benchmark": "determinism", **describe(), **report}))
    if different:
        first = different[0]
        names = [name for name in quiet[first] if quiet[first][name] != busy[first][name]]
        raise SystemExit(f"Gradients differ from step {first} on: {', '.join(names)}")


if __name__ == "__main__":
    main()
