"""One look at a machine with CUDA: does everything compute the right numbers there, and how fast?

    python benchmarks/gpu.py                                # every section, at most eight minutes on one card
    python benchmarks/gpu.py --sections parity steps        # some sections
    python benchmarks/gpu.py --device cpu                   # every section at a tiny size: checks the script, not the speed
    python benchmarks/gpu.py --out gpu.json                 # also write the JSON to a file

Needs torch and this package only. Sections run in the order of `SECTIONS`; one that fails is reported with its error, and the
others still run. A section that has no time left is reported as such. Prints one JSON line, one table, and what is below
expectation (`EXPECTATIONS`). The exit code is 1 if a section failed; a missed expectation is a result, not a failure.
"""

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts: for deterministic products (resume)

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_checks import compiled_blocks, fsdp, parity, resume
from gpu_common import Place, Rows, release
from gpu_speed import attention, generation, loading, steps, tokenizer
from machine import describe

from fourfold.training.performance import peak_flops

SECONDS = 480  # of all sections
# In the order of what one wants to know first. Each returns its numbers by a flat name.
SECTIONS: dict[str, Callable[[Place], Rows]] = {
    "parity": parity,
    "resume": resume,
    "attention": attention,
    "steps": steps,
    "generation": generation,
    "loading": loading,
    "compile": compiled_blocks,
    "fsdp": fsdp,
    "tokenizer": tokenizer,
}
# Number → sign and bound. Speed is judged on a GPU only.
EXPECTATIONS = {
    "parity/fp32/logits_max_error": ("<=", 5e-4),
    "parity/bf16/logits_relative_error": ("<=", 0.05),
    "resume/same_bytes_after_resume": (">=", 1),
    "attention/packed/max_error": ("<=", 0.05),
    "compile/graph_breaks": ("<=", 0),
    "compile/bf16/gradients_relative_error": ("<=", 0.05),
    "fsdp/loss_relative_error": ("<=", 1e-5),
    "steps/B/mfu": (">=", 0.45),
    "steps/L/mfu": (">=", 0.45),
    "loading/share_of_a_step": ("<=", 0.02),
    "generation/caption_ratio": (">=", 10),
}
OF_SPEED = ("steps/", "loading/", "generation/")


def run_all(place: Place, names: list[str]) -> dict[str, Rows]:
    """Return the rows of each section; those of a section that failed have the key `failed`, and its place in the code."""
    found: dict[str, Rows] = {}
    for name in names:
        print(f"{name} …", end="", file=sys.stderr, flush=True)
        began = time.perf_counter()
        if place.seconds_left <= 0:
            found[name] = {"failed": "no time left"}
        else:
            try:
                found[name] = SECTIONS[name](place)
            except Exception as error:  # whatever happens in one section, the others are measured
                where = traceback.extract_tb(error.__traceback__)[-1]
                sentence = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                found[name] = {"failed": sentence, "where": f"{Path(where.filename).name}:{where.lineno}"}
        release(place)
        found[name]["seconds"] = round(time.perf_counter() - began, 1)
        print(f" {found[name]['seconds']} s {found[name].get('failed', '')}", file=sys.stderr)
    return found


def table(found: dict[str, Rows], on_gpu: bool) -> list[dict[str, Any]]:
    """Return one row for each number: its name, value, expectation, and whether it is met."""
    rows = []
    for section, values in found.items():
        for key, value in values.items():
            name = f"{section}/{key}"
            sign, bound = EXPECTATIONS.get(name, ("", 0.0))
            judged = bool(sign) and (on_gpu or not name.startswith(OF_SPEED)) and isinstance(value, int | float)
            met = "" if not judged else "yes" if (value >= bound if sign == ">=" else value <= bound) else "NO"
            rows.append({"name": name, "value": value, "expected": f"{sign} {bound:g}" if sign else "", "met": met})
    return rows


def missing(found: dict[str, Rows], names: list[str], on_gpu: bool) -> list[str]:
    """Return the expectations about the sections in `names` that nothing was measured for."""
    measured = {f"{section}/{key}" for section, values in found.items() for key in values}
    wanted = [name for name in EXPECTATIONS if name.partition("/")[0] in names]
    return [name for name in wanted if name not in measured and (on_gpu or not name.startswith(OF_SPEED))]


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of all sections together")
    parser.add_argument("--out", type=Path, help="a file for the JSON")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("torch finds no CUDA device. Use --device cpu to check the script at tiny sizes.", file=sys.stderr)
        return 1
    place = Place.of(options.device, options.seconds)
    found = run_all(place, options.sections)
    about = {"device": place.name, "bf16_peak_tflops": (peak_flops(place.device) or 0) / 1e12, **describe()}
    about |= {"cuda": torch.version.cuda, "compute_capability": place.capability, "memory_gib": place.memory_gib}
    report = {"benchmark": "gpu", **about, "sections": found}
    print(json.dumps(report))
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    rows = table(found, on_gpu)
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:{width}}  {row['value']!s:>14}  {row['expected']:>9}  {row['met']}".rstrip())
    below = [row["name"] for row in rows if row["met"] == "NO"] + missing(found, options.sections, on_gpu)
    print(f"\nBelow expectation, or not measured: {', '.join(below) or 'nothing'}")
    return int(any("failed" in values for values in found.values()))


if __name__ == "__main__":
    sys.exit(main())
