"""Throughput of a training run: rates, waiting time, MFU and memory (`Meter`), and traces of single steps (`profiling`)."""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

# Dense bfloat16 peaks of matrix products in FLOP/s, from the vendors' data sheets; a key is part of the name that CUDA
# reports
PEAK_FLOPS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
}
STEPS_BEFORE_TRACE = 5  # the first steps allocate memory and are not representative


class Meter:
    """Measures the steps of this process between two reports, without the time for validation and saving."""

    def __init__(self, device: torch.device, peak: float | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        self.device, self.clock = device, clock
        self.peak = peak_flops(device) if peak is None else peak
        self._reset()

    def count(self, **amounts: float) -> None:
        """Add what a batch holds: `samples`, `tokens` (non-empty), `flops` (forward and backward), of all processes."""
        for name, amount in amounts.items():
            self._amounts[name] = self._amounts.get(name, 0.0) + amount

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside the block as waiting for data."""
        start = self.clock()
        yield
        self._waited += self.clock() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside the block out of all rates."""
        start = self.clock()
        yield
        self._paused += self.clock() - start

    def metrics(self, num_steps: int, num_processes: int = 1) -> dict[str, float]:
        """Return the metrics since the last call, and reset.

        Returns:
            `performance/...` metrics: rates per second, `data_wait_share` (the share of the time spent waiting for
            data), `peak_memory_megabytes` (the maximum so far: of tensors on a GPU, of the process on a CPU),
            `tflops_per_second`, and `mfu` (model FLOPs over peak, arXiv 2204.02311) where the peak of the device is
            known.
        """
        seconds = max(self.clock() - self._start - self._paused, 1e-9)
        rates = {"steps_per_second": num_steps / seconds}
        rates |= {f"{name}_per_second": amount / seconds for name, amount in self._amounts.items() if name != "flops"}
        if flops := self._amounts.get("flops"):
            rates["tflops_per_second"] = flops / seconds / 1e12
            if self.peak:
                rates["mfu"] = flops / seconds / (self.peak * num_processes)
        rates["data_wait_share"] = min(1.0, self._waited / seconds)
        rates["peak_memory_megabytes"] = peak_memory(self.device) / 2**20
        self._reset()
        return {f"performance/{name}": value for name, value in rates.items()}

    def _reset(self) -> None:
        self._amounts: dict[str, float] = {}
        self._waited = self._paused = 0.0
        self._start = self.clock()


def peak_flops(device: torch.device) -> float | None:
    """Return the peak of a known GPU in FLOP/s; None for other GPUs and for CPUs (benchmarks measure theirs)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAK_FLOPS.items() if key in name), None)


def peak_memory(device: torch.device) -> float:
    """Return the maximum of memory used so far, in bytes."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0  # Linux counts in KiB


@contextmanager
def profiling(num_steps: int, path: Path, on_trace: Callable[[Path], None]) -> Iterator[Callable[[], None]]:
    """Trace some steps with `torch.profiler`, to be opened in https://ui.perfetto.dev or chrome://tracing.

    Args:
        num_steps: number of steps to trace, after the first `STEPS_BEFORE_TRACE`; 0 traces nothing.
        path: where to write the trace (`.json.gz`). A run that ends early writes the steps that it has.
        on_trace: called with `path` once the trace is written.

    Yields:
        A function to be called after each step.
    """
    if not num_steps:
        yield lambda: None
        return

    def finish(profile: torch.profiler.profile) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        profile.export_chrome_trace(str(path))
        on_trace(path)

    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    schedule = torch.profiler.schedule(wait=STEPS_BEFORE_TRACE - 1, warmup=1, active=num_steps, repeat=1)
    with torch.profiler.profile(
        activities=activities, schedule=schedule, on_trace_ready=finish, profile_memory=True
    ) as profile:
        yield profile.step
