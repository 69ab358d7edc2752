"""What a training or a prediction takes: seconds of the processor, seconds that pass, and memory.

The processor's time is measured where a process computes with one thread on a CPU: it does not grow when other programs want
the same core. On a GPU the time that passes is measured.
"""

import contextlib
import ctypes
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fourfold.training.precision import default_device

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): resets the peak of the resident memory to its current value
KIB = 1024
WARM_UP = 2  # predictions before the measured ones
SMALLEST = 2  # marks that give a rate


def seconds_used() -> float:
    """Return a clock in seconds: of the processor on a CPU, of the wall on a GPU (after the GPU has finished)."""
    if default_device().type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


@dataclass
class StepClock:
    """Measures the steps of a training by the times at which it logs; steps of a process that was killed need not be known."""

    clock: Callable[[], float] = seconds_used
    marks: list[tuple[int, float]] = field(default_factory=list)  # steps done, seconds

    def mark(self, step: int) -> None:
        """Note that `step` steps are done."""
        self.marks.append((step, self.clock()))

    def seconds_per_step(self) -> float | None:
        """Return the median over the intervals between marks; None with fewer than two marks."""
        pairs = zip(self.marks, self.marks[1:], strict=False)
        rates = [(after[1] - before[1]) / (after[0] - before[0]) for before, after in pairs if after[0] > before[0]]
        return statistics.median(rates) if len(self.marks) >= SMALLEST and rates else None


class MemoryMeter:
    """Measures how far the memory of this process (on a GPU: that of its tensors) rises above its level at the start."""

    def __init__(self) -> None:
        """Start to measure."""
        if default_device().type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._start = torch.cuda.memory_allocated()
            return
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)  # freed memory of earlier work would hide what this work needs
            with contextlib.suppress(OSError):  # in some sandboxes; then a peak of earlier work counts too
                CLEAR.write_text(RESET_PEAK)
        self._start = _resident("VmRSS")

    def peak_megabytes(self) -> float:
        """Return the rise so far, in units of 2^20 bytes."""
        if default_device().type == "cuda":
            return (torch.cuda.max_memory_allocated() - self._start) / 2**20
        return max(0, _resident("VmHWM") - self._start) / 2**20


def measure_latencies(actions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each action, by name.

    In each round every action runs once, so that whatever else the machine does slows all of them alike; compare the actions of
    one call only.
    """
    for action in actions.values():
        for _ in range(WARM_UP):
            action()
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            if default_device().type == "cuda":
                torch.cuda.synchronize()
            taken[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(times) for name, times in taken.items()}


def _resident(name: str) -> int:
    """Return a line of /proc/self/status in bytes; where there is none, the peak since the process started."""
    if STATUS.exists():
        found = next((line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:")), None)
        if found is not None:
            return int(found.split()[1]) * KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
