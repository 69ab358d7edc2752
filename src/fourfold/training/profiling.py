"""A trace of some steps on request, to be opened in chrome://tracing or https://ui.perfetto.dev."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

STEPS_BEFORE = 5  # the first steps are not like the others


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
