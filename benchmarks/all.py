"""All lines of speed in one run: what must be reached, what is, and on which machine.

    python benchmarks/all.py                    # or `make bench`: about ten minutes on two quiet cores
    python benchmarks/all.py memory roar        # or `make bench ARGS="memory roar"`: some lines by name

Each measurement is a file of this folder run in a process of its own, one after the other, so that neither memory nor threads
of one disturb the next. Prints one JSON line, then one table. Ends with 1 if a measurement failed; a line that is not met is
a finding, not a failure.
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
STEP = "Ti, 7 modalities, released vocabularies, 128/128 tokens, batch 16"
Report = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One line of the table. `reached` reads the reports of `needs`, measurements by name, in that order."""

    title: str
    configuration: str
    must: str  # ≥ or ≤, then the number
    needs: tuple[str, ...]
    reached: Callable[..., float]
    needs_bfloat16: bool = False

    def is_met(self, reached: float) -> bool:
        """Compare with the number behind ≥ or ≤."""
        sign, number = self.must.split()[:2]
        return reached >= float(number) if sign == "≥" else reached <= float(number)


# Measurement → the file that makes it, and its options. Each prints its report as the last line that starts with {.
MEASUREMENTS = {
    "bf16": ("step.py", "--precision", "bf16", "--repeats", "2"),
    "fp32": ("step.py", "--repeats", "5"),
    "generation": ("generation.py",),
    "loading": ("loading.py", "--workers", "1"),
    "memory": ("step.py", "--memory"),
    "growth": ("step.py", "--growth"),
}
LINES = {
    "bf16": Line(
        "training step, bf16, against the plain way",
        STEP,
        "≥ 1.5 ×",
        ("bf16",),
        lambda step: step["ratio"],
        needs_bfloat16=True,
    ),
    "fp32": Line("training step, fp32, against the plain way", STEP, "≥ 1.0 ×", ("fp32",), lambda step: step["ratio"]),
    "optimizer": Line("optimizer and clipping, share of a step", STEP, "≤ 0.12", ("fp32",), lambda step: step["update_share"]),
    "captions": Line(
        "caption, tokens/s against recomputing everything",
        "Ti, 64 tokens, batch 8",
        "≥ 5 ×",
        ("generation",),
        lambda generation: generation["ratios"]["caption tokens/s"],
    ),
    "roar": Line(
        "RGB → depth, one ROAR step against one forward pass",
        "Ti, 196 tokens, batch 8",
        "≤ 1.15 ×",
        ("generation",),
        lambda generation: generation["ratios"]["depth, one ROAR step"],
    ),
    "loader": Line(
        "loader with masking, samples/s against the step's",
        "local shards, 1 worker",
        "≥ 20 ×",
        ("loading", "fp32"),
        lambda loading, step: loading["samples_per_second"] / step["samples_per_second"],
    ),
    "masking": Line("masking a batch, share of a step", STEP, "≤ 0.02", ("fp32",), lambda step: step["masking_share"]),
    "memory": Line(
        "peak memory of training, against the plain way", STEP, "≤ 0.8 ×", ("memory",), lambda memory: memory["memory_ratio"]
    ),
    "growth": Line(
        "step time off a line, without attention's term",
        "Ti, batch 4 to 32, and 64 to 256 tokens",
        "≤ 0.15",
        ("growth",),
        lambda growth: max(growth["deviation_over_batch"], growth["deviation_over_budget"]),
    ),
}


def measure(name: str, longest: int) -> Report:
    """The report of one measurement, or {"failed": why}."""
    file, *options = MEASUREMENTS[name]
    command = [sys.executable, str(FOLDER / file), *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=longest)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {longest} s"}
    reports = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not reports:
        return {"failed": (done.stderr.strip().splitlines() or ["printed no report"])[-1]}
    return json.loads(reports[-1])


def measure_all(names: list[str], longest: int) -> dict[str, Report]:
    """The reports by name; a line of progress for each goes to stderr."""
    found = {}
    for place, name in enumerate(names, 1):
        print(f"[{place}/{len(names)}] {' '.join(MEASUREMENTS[name])} …", end="", file=sys.stderr, flush=True)
        began = time.perf_counter()
        found[name] = measure(name, longest)
        print(f" {time.perf_counter() - began:.0f} s", found[name].get("failed", ""), file=sys.stderr)
    return found


def row(line: Line, reports: dict[str, Report], has_bfloat16: bool) -> Report:
    """What the table says of a line."""
    about = {"line": line.title, "configuration": line.configuration, "must_reach": line.must}
    failed = [reports[name]["failed"] for name in line.needs if "failed" in reports[name]]
    missing = line.needs_bfloat16 and not has_bfloat16
    if failed:
        return about | {"reached": None, "met": "no hardware" if missing else f"failed: {failed[0]}"}
    reached = line.reached(*(reports[name] for name in line.needs))
    met = "no hardware" if missing else "yes" if line.is_met(reached) else "no"
    return about | {"reached": round(reached, 4), "met": met}


def table(rows: list[Report]) -> str:
    """Columns as wide as what they hold."""
    head = {"line": "line", "configuration": "configuration", "must_reach": "must reach", "reached": "reached", "met": "met"}
    cells = [[str("–" if entry[key] is None else entry[key]) for key in head] for entry in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(entry, widths, strict=True)).rstrip() for entry in cells
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lines", nargs="*", metavar="line", help=f"some of: {', '.join(LINES)} (default: all)")
    parser.add_argument("--longest", type=int, default=240, help="seconds for one measurement; more on a busy machine")
    options = parser.parse_args()
    limit_idle_threads()  # in the measurements, which inherit the environment
    if unknown := [name for name in options.lines if name not in LINES]:
        parser.error(f"there is no line {unknown[0]!r}; lines are {', '.join(LINES)}")
    names = options.lines or list(LINES)
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # as many for each measurement
    needed = {measurement for name in names for measurement in LINES[name].needs}
    machine = describe()
    reports = measure_all([name for name in MEASUREMENTS if name in needed], options.longest)
    has_bfloat16 = has_fast_bfloat16(torch.device("cpu"))
    rows = {name: row(LINES[name], reports, has_bfloat16) for name in names}
    print(json.dumps({"benchmark": "all", "machine": machine, "lines": rows, "measurements": reports}, ensure_ascii=False))
    print("\n".join(f"{name:8} {value}" for name, value in machine.items()), end="\n\n")
    print(table(list(rows.values())))
    return int(any(entry["met"].startswith("failed") for entry in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
