"""What every training run needs beside its data and settings: seed, folder, metric log and processes."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from fourfold.metric_log import MetricLog, NullMetricLog
from fourfold.training.process_group import ProcessGroup


@dataclass(frozen=True)
class RunContext:
    """Travels from the stage (`RunContext(seed, folder, log)`) down to the training loop.

    Attributes:
        seed: source of all randomness of the run, through `fourfold.seeds`.
        folder: where the run keeps checkpoints and results; no other run writes there. None keeps nothing on disk.
        log: receives metrics and files while the run works.
        processes: the processes that train together; by default this one alone.
        is_scratch: the folder serves only to resume a killed training, which saves nothing in it after its last step.
        history: file that receives the curves of a training whose folder is scratch; None keeps none.
    """

    seed: int
    folder: Path | None = None
    log: MetricLog = field(default_factory=NullMetricLog)
    processes: ProcessGroup = field(default_factory=ProcessGroup)
    is_scratch: bool = False
    history: Path | None = None

    @property
    def root(self) -> Path:
        """The folder of a run that must have one."""
        assert self.folder is not None, "this run needs a folder"
        return self.folder

    def within(self, *names: str) -> "RunContext":
        """Return the context of a part of the run, with its own subfolder."""
        return self if self.folder is None else replace(self, folder=self.folder.joinpath(*names))

    @contextmanager
    def scratch(self, name: str, history: str = "") -> Iterator["RunContext"]:
        """Yield the context of a training whose result is saved inside the block, with a subfolder to resume from.

        The curves of the training go to the file `history` beside the subfolder; "" keeps none.

        The subfolder is removed when the block has succeeded; a run that is killed before continues from it.
        """
        kept = self.folder / history if self.folder is not None and history else None
        context = replace(self.within(name), is_scratch=True, history=kept)
        yield context
        if context.folder and self.processes.is_first:
            shutil.rmtree(context.folder, ignore_errors=True)  # absent if the training was shorter than the interval

    def joined(self) -> "RunContext":
        """Return the context with the processes that torchrun started; connects them if necessary."""
        return replace(self, processes=ProcessGroup.join())
