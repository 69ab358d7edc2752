"""What every training run needs beside its data and settings: seed, folder, metric log and processes."""

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
    """

    seed: int
    folder: Path | None = None
    log: MetricLog = field(default_factory=NullMetricLog)
    processes: ProcessGroup = field(default_factory=ProcessGroup)

    @property
    def root(self) -> Path:
        """The folder of a run that must have one."""
        assert self.folder is not None, "this run needs a folder"
        return self.folder

    def within(self, *names: str) -> "RunContext":
        """Return the context of a part of the run, with its own subfolder."""
        return self if self.folder is None else replace(self, folder=self.folder.joinpath(*names))

    def joined(self) -> "RunContext":
        """Return the context with the processes that torchrun started; connects them if necessary."""
        return replace(self, processes=ProcessGroup.join())
