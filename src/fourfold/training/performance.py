"""How fast training is and what it waits for: measured between two reports, validation and saving left out."""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

# Dense bfloat16 peaks of matrix products, FLOP/s, from the makers' data sheets; the name as CUDA gives it holds the key
STEPS_BEFORE = 5  # the first steps are not like the others
PEAKS = {"H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12}


class Meter:
    """Counts what the steps since the last report did, on this process."""

    def __init__(self, device: torch.device, peak: float | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        self.device, self.clock = device, clock
        self.peak = peak_flops(device) if peak is None else peak
        self._reset()

    def count(self, **amounts: float) -> None:
        """Add what a batch holds: `samples`, `tokens` (that exist), `flops` (of forward and backward) of all processes."""
        for name, amount in amounts.items():
            self._amounts[name] = self._amounts.get(name, 0.0) + amount

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within it training waits for data."""
        began = self.clock()
        yield
        self._waited += self.clock() - began

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Within it something else than training happens."""
        began = self.clock()
        yield
        self._aside += self.clock() - began

    def figures(self, num_steps: int, world_size: int = 1) -> dict[str, float]:
        """Return rates per second, MFU (model FLOP over peak, arXiv 2204.02311) and memory, and start anew.

        `mfu` is there only where the peak of the device is known; `data_wait_share` is the share of the time in which training
        had no data; memory is the most that was used so far, by tensors on a GPU, by the process on a CPU.
        """
        seconds = max(self.clock() - self._began - self._aside, 1e-9)
        found = {"steps_per_second": num_steps / seconds}
        found |= {f"{name}_per_second": amount / seconds for name, amount in self._amounts.items() if name != "flops"}
        if flops := self._amounts.get("flops"):
            found["tflops_per_second"] = flops / seconds / 1e12
            if self.peak:
                found["mfu"] = flops / seconds / (self.peak * world_size)
        found["data_wait_share"] = min(1.0, self._waited / seconds)
        found["peak_memory_megabytes"] = peak_memory(self.device) / 2**20
        self._reset()
        return {f"performance/{name}": value for name, value in found.items()}

    def _reset(self) -> None:
        self._amounts: dict[str, float] = {}
        self._waited = self._aside = 0.0
        self._began = self.clock()


def peak_flops(device: torch.device) -> float | None:
    """Return the peak of a known GPU in FLOP/s, None for others and for CPUs (benchmarks measure theirs)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAKS.items() if key in name), None)


def peak_memory(device: torch.device) -> float:
    """Return the most memory used so far, in bytes."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0  # Linux counts in KiB


@contextmanager
def profiling(num_steps: int, path: Path, done: Callable[[Path], None]) -> Iterator[Callable[[], None]]:
    """Yield what is to be called after each step; after the last of `num_steps` the trace is in `path` (`.json.gz`) and `done`.

    With 0 steps nothing is traced. A run that ends earlier leaves what it has.
    """
    if not num_steps:
        yield lambda: None
        return

    def finish(profile: torch.profiler.profile) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        profile.export_chrome_trace(str(path))
        done(path)

    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    schedule = torch.profiler.schedule(wait=STEPS_BEFORE - 1, warmup=1, active=num_steps, repeat=1)
    with torch.profiler.profile(activities=kinds, schedule=schedule, on_trace_ready=finish, profile_memory=True) as profile:
        yield profile.step
