"""Measure speed and memory against the targets, and print one table.

    python benchmarks/all.py                    # or `make bench`: about ten minutes on two quiet cores
    python benchmarks/all.py default busy       # or `make bench ARGS="default busy"`: some lines by name

Each measurement runs one file of this folder in a separate process, one after the other, so that memory and threads of one do
not disturb the next. Prints one JSON line, then a table. The exit code is 1 if a measurement failed; a missed target is a
result, not a failure.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from machine import describe

from fourfold.training.precision import has_fast_bfloat16
from fourfold_ops.hooks.threads import limit_idle_threads

FOLDER = Path(__file__).parent
DEFAULT = "width 128, 4 + 4 layers, 64/80 tokens, batch 32"
STEP = "Ti, 7 modalities, released vocabularies, 128/128 tokens, batch 16"
Report = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One line of the table. `value` computes its number from the reports of the measurements in `needs`, in that order."""

    title: str
    configuration: str
    target: str  # ≥ or ≤, then the number
    needs: tuple[str, ...]
    value: Callable[..., float]
    needs_bfloat16: bool = False

    def is_met(self, value: float) -> bool:
        """Compare with the number of the target."""
        sign, number = self.target.split()[:2]
        return value >= float(number) if sign == "≥" else value <= float(number)


# Measurement → its file and options. Each file prints its report as the last line that starts with {.
MEASUREMENTS = {
    "default": ("default_step.py", "--busy"),
    "bf16": ("step.py", "--precision", "bf16", "--repeats", "2"),
    "fp32": ("step.py", "--repeats", "5"),
    "generation": ("generation.py",),
    "loading": ("loading.py", "--workers", "1"),
    "memory": ("step.py", "--memory"),
    "growth": ("step.py", "--growth"),
    "scale": ("scale.py",),
}
LINES = {
    "default": Line(
        "default step with optimizer, share of float32 peak",
        DEFAULT,
        "≥ 0.45",
        ("default",),
        lambda default: default["share_of_peak"],
    ),
    "busy": Line(
        "default step beside a busy process, against quiet",
        DEFAULT,
        "≤ 2.5 ×",
        ("default",),
        lambda default: default["busy_ratio"],
    ),
    "bf16": Line(
        "training step in bf16, against the plain computation",
        STEP,
        "≥ 1.5 ×",
        ("bf16",),
        lambda step: step["ratio"],
        needs_bfloat16=True,
    ),
    "fp32": Line(
        "training step in fp32, against the plain computation", STEP, "≥ 1.0 ×", ("fp32",), lambda step: step["ratio"]
    ),
    "optimizer": Line("optimizer and clipping, share of a step", STEP, "≤ 0.12", ("fp32",), lambda step: step["update_share"]),
    "captions": Line(
        "caption tokens/s, against recomputing each prefix",
        "Ti, 64 tokens, batch 8",
        "≥ 5 ×",
        ("generation",),
        lambda generation: generation["ratios"]["caption tokens/s"],
    ),
    "roar": Line(
        "RGB → depth in one ROAR step, against a forward pass",
        "Ti, 196 tokens, batch 8",
        "≤ 1.15 ×",
        ("generation",),
        lambda generation: generation["ratios"]["depth, one ROAR step"],
    ),
    "loader": Line(
        "loader with masking, samples/s against the step",
        "local shards, 1 worker",
        "≥ 20 ×",
        ("loading", "fp32"),
        lambda loading, step: loading["samples_per_second"] / step["samples_per_second"],
    ),
    "masking": Line("masking a batch, share of a step", STEP, "≤ 0.02", ("fp32",), lambda step: step["masking_share"]),
    "memory": Line(
        "peak memory of training, against the plain computation",
        STEP,
        "≤ 0.8 ×",
        ("memory",),
        lambda memory: memory["memory_ratio"],
    ),
    "growth": Line(
        "deviation of the step time from linear growth",
        "Ti, batch 4 to 32 and 64 to 256 tokens, without attention",
        "≤ 0.15",
        ("growth",),
        lambda growth: max(growth["deviation_over_batch"], growth["deviation_over_budget"]),
    ),
    "scale": Line(
        "memory of the data stages, growth with each sample",
        "32 px, 10 k and 100 k image files in archives",
        "≤ 100 bytes",
        ("scale",),
        lambda scale: max(stage["bytes_a_sample"] for stage in scale["stages"] if stage["stage"] != "ingest_files"),
    ),
}


LONG = {"scale": 3600}  # lines that are measured only if they are named, and the seconds that they may take


def measure(name: str, timeout: int) -> Report:
    """Return the report of one measurement, or {"failed": reason}."""
    file, *options = MEASUREMENTS[name]
    command = [sys.executable, str(FOLDER / file), *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"failed": f"not finished after {timeout} s"}
    reports = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not reports:
        return {"failed": (done.stderr.strip().splitlines() or ["printed no report"])[-1]}
    return json.loads(reports[-1])


def measure_all(names: list[str], timeout: int) -> dict[str, Report]:
    """Return the reports by name; print one line of progress for each to stderr."""
    reports = {}
    for number, name in enumerate(names, 1):
        print(f"[{number}/{len(names)}] {' '.join(MEASUREMENTS[name])} …", end="", file=sys.stderr, flush=True)
        began = time.perf_counter()
        reports[name] = measure(name, max(timeout, LONG.get(name, 0)))
        print(f" {time.perf_counter() - began:.0f} s", reports[name].get("failed", ""), file=sys.stderr)
    return reports


def row(line: Line, reports: dict[str, Report], has_bfloat16: bool) -> Report:
    """Return the table row of a line."""
    about = {"line": line.title, "configuration": line.configuration, "target": line.target}
    failed = [reports[name]["failed"] for name in line.needs if "failed" in reports[name]]
    missing = line.needs_bfloat16 and not has_bfloat16
    if failed:
        return about | {"measured": None, "met": "no hardware" if missing else f"failed: {failed[0]}"}
    value = line.value(*(reports[name] for name in line.needs))
    met = "no hardware" if missing else "yes" if line.is_met(value) else "no"
    return about | {"measured": round(value, 4), "met": met}


def table(rows: list[Report]) -> str:
    """Return the rows as text with aligned columns."""
    keys = ("line", "configuration", "target", "measured", "met")
    head = {key: key for key in keys}
    cells = [[str("–" if entry[key] is None else entry[key]) for key in keys] for entry in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(entry, widths, strict=True)).rstrip() for entry in cells
    )


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choice = f"some of: {', '.join(LINES)} (default: all but {', '.join(LONG)})"
    parser.add_argument("lines", nargs="*", metavar="line", help=choice)
    parser.add_argument("--timeout", type=int, default=240, help="seconds for one measurement; give more on a busy machine")
    options = parser.parse_args()
    if unknown := [name for name in options.lines if name not in LINES]:
        parser.error(f"unknown line {unknown[0]!r}; allowed: {', '.join(LINES)}")
    names = options.lines or [name for name in LINES if name not in LONG]
    limit_idle_threads()  # in the measurements, as in every process of a run
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # the same in every measurement
    needed = {measurement for name in names for measurement in LINES[name].needs}
    machine = describe()
    reports = measure_all([name for name in MEASUREMENTS if name in needed], options.timeout)
    has_bfloat16 = has_fast_bfloat16(torch.device("cpu"))
    rows = {name: row(LINES[name], reports, has_bfloat16) for name in names}
    print(json.dumps({"benchmark": "all", "machine": machine, "lines": rows, "measurements": reports}, ensure_ascii=False))
    print("\n".join(f"{name:8} {value}" for name, value in machine.items()), end="\n\n")
    print(table(list(rows.values())))
    if "failed" not in (default := reports.get("default", {"failed": ""})):
        print(
            f"\nDefault step: {default['step_ms']} ms quiet, {default['busy_step_ms']} ms beside a busy process; "
            f"{default['gflops']} of {default['peak_gflops']} GFLOP/s in {default['precision']}."
        )
    return int(any(entry["met"].startswith("failed") for entry in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
