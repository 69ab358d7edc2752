"""The one training loop: 4M, tokenizers, teachers and fine-tuning all run through `train`.

A run is a pure function of its inputs: batches are determined by a cursor, losses draw only from generators that are
seeded by the step, and a checkpoint holds everything else. A run that was killed after any step therefore ends with the
same bytes as an uninterrupted one.

Several processes may train together (`ProcessGroup`): each computes its share of the loss of every step, and the shares
add up. Their number changes the last bits at most, so a run may resume with another number of processes.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from fourfold.data.cursor import Cursor
from fourfold.digests import is_intact, write_recorded_json
from fourfold.progress import progress
from fourfold.training.checkpoints import (
    Checkpoint,
    CheckpointWriter,
    TensorGroups,
    latest_checkpoint,
    read_progress,
    restore,
    save_tensors,
)
from fourfold.training.config import LoopConfig, ScheduleConfig, lr_multiplier
from fourfold.training.determinism import deterministic_kernels
from fourfold.training.optimizers import OptimizerSet
from fourfold.training.parallel import whole, whole_tensors
from fourfold.training.performance import Meter, profiling
from fourfold.training.precision import subnormals_as_zero
from fourfold.training.preemption import Preempted, Termination, noticing_termination
from fourfold.training.run_context import RunContext
from fourfold.training.state import TrainingState, WeightAverage

logger = logging.getLogger(__name__)
Batch = TypeVar("Batch")

BEST_FILE = "best.safetensors"  # weights with the lowest validation loss (averaged weights if averaging is on)
HISTORY_FILE = "history.json"
BEFORE_BEST = "Training resumes from before it."
TRACE_FILE = "profile/rank-{}.json.gz"
MAX_SAVING_SHARE = 0.01  # of the time: where saving takes long, checkpoints by time are rarer

PartialLoss = tuple[Tensor, dict[str, Tensor]]  # a term of the loss, and metrics that add up over the terms; all scalars
# (batch, step) → the loss, or several terms that add up, with one backward pass each (gradient accumulation)
# or the sums of gradients that others have computed already (`fourfold.training.replicas`)
LossFunction = Callable[[Batch, int], "PartialLoss | Iterator[PartialLoss] | FinishedBackward"]
BatchSource = Callable[[Cursor], Iterable[tuple[Batch, Cursor]]]  # endless; each batch with the cursor after it
Validation = Callable[[], dict[str, float]]  # must contain "loss", lower is better


@dataclass(frozen=True)
class FinishedBackward:
    """The sums of loss and metrics of a step whose gradients are in `.grad` already."""

    sums: dict[str, Tensor]


@dataclass(frozen=True)
class TrainingSetup(Generic[Batch]):
    """What is trained, on what, and for how long.

    Attributes:
        model: the module whose weights, buffers and averages are saved. With several processes it is already
            distributed (`ParallelModel`).
        compute_loss: returns the loss and named metrics of a batch, or yields terms of them. Whatever it draws at
            random must come from a generator that is seeded by the step, otherwise resuming is not exact. With several
            processes it returns the share of this process; the shares add up to loss and metrics of the step.
        batches: yields batches from a cursor on, without end.
        optimizer: updates the parameters.
        num_steps: number of updates.
        schedule: learning rates over these steps.
        validate: computes metrics on held-out data; called under `torch.no_grad()`, in eval mode.
    """

    model: nn.Module
    compute_loss: LossFunction[Batch]
    batches: BatchSource[Batch]
    optimizer: OptimizerSet
    num_steps: int
    schedule: ScheduleConfig
    validate: Validation | None = None


def train(
    setup: TrainingSetup[Any],
    config: LoopConfig,
    run: RunContext,
    *,
    description: str = "training",
    meter: Meter | None = None,
    profile_steps: int = 0,
) -> TrainingState:
    """Train `setup.model` in place, resuming from the newest checkpoint in `run.folder` if there is one.

    Afterwards the model holds the last weights, or their moving average if averaging is on. With validation, the
    weights of the lowest validation loss are in `best.safetensors` in the folder. The folder must have been claimed for
    exactly this run (`reuse.claim`); several processes must all see it, and the first one writes.

    Args:
        setup: model, loss, data, optimizer and number of steps.
        config: clipping, averaging and intervals.
        run: folder (None keeps nothing on disk), metric log and processes.
        description: name of the run in log lines and on the progress bar.
        meter: measures throughput; one that knows the FLOPs reports MFU.
        profile_steps: number of steps to trace with `torch.profiler`.

    Raises:
        FloatingPointError: if more steps had to be skipped than `config` allows.
        Preempted: after a SIGTERM, once the step in progress is finished and saved in the folder.
    """
    # 1) Resume, or start from scratch
    meter = meter or Meter(next(setup.model.parameters()).device)
    loop = _Loop(setup, config, run, description, meter, profile_steps)
    loop.resume()
    setup.model.train()
    # 2) Open the data where the checkpoint left off
    remaining = setup.num_steps - loop.state.step
    source = iter(setup.batches(loop.state.cursor)) if remaining > 0 else iter(())
    steps: Iterable[Any] = _take(source, remaining, meter)
    if run.processes.is_first:
        steps = progress(steps, description, setup.num_steps, "steps", loop.state.step, loop.progress_note)
    # 3) Train
    trace = (run.folder or Path()) / TRACE_FILE.format(run.processes.rank)
    with (
        closing(loop),
        subnormals_as_zero(),
        deterministic_kernels(loop.meter.device),
        noticing_termination(can_save=run.folder is not None) as termination,
        profiling(profile_steps if run.folder else 0, trace, loop.keep_trace) as after_profiled_step,
    ):
        for batch, cursor in steps:
            multiplier = lr_multiplier(setup.schedule, loop.state.step, setup.num_steps)
            stop = loop.update(setup.compute_loss(batch, loop.state.step), multiplier, termination)
            loop.state.cursor = cursor
            loop.after_step()
            after_profiled_step()
            if stop:
                loop.stop()
        # 4) Wait for the last checkpoint and keep the curves
        loop.finish()
    return loop.state


def _take(source: Iterator[Any], count: int, meter: Meter) -> Iterator[Any]:
    for _ in range(count):
        with meter.waiting():
            item = next(source)
        yield item


@dataclass
class _Loop:
    """State and actions of one run; `train` above holds the order of the actions."""

    setup: TrainingSetup[Any]
    config: LoopConfig
    run: RunContext
    description: str
    meter: Meter
    profile_steps: int
    state: TrainingState = field(default_factory=TrainingState)

    def __post_init__(self) -> None:
        self.model, self.optimizer, self.processes = self.setup.model, self.setup.optimizer, self.run.processes
        decay, keep = self.config.average_decay, self.config.keep_checkpoints
        self.average = None if decay is None else WeightAverage(self.model, decay)
        self.writer: CheckpointWriter | None = None
        if self.run.folder is not None:
            self.writer = CheckpointWriter(self.run.folder, keep, self.processes, self._log_saved, self._is_planned)
        self.saved = self.reported = 0  # steps done at the last checkpoint and at the last report
        self.is_due, self.due_at = False, time.monotonic() + (self.config.checkpoint_seconds or math.inf)

    def resume(self) -> None:
        """Restore the newest checkpoint, if there is one."""
        # the first process decides, in case the others see the shared folder with a delay
        path = self.processes.broadcast(self._newest() if self.run.folder and self.processes.is_first else None)
        if path is None:
            return
        self.state = TrainingState.from_json(restore(path, self._tensors()))
        self.saved = self.reported = self.state.step
        # `fourfold_ops.kubernetes` reads this line and "checkpoint at step …"
        logger.info("%s: resuming from step %d of %d.", self.description, self.state.step, self.setup.num_steps)

    def _newest(self) -> Path | None:
        """Return the checkpoint to resume from: the newest whole one, or one before a damaged `best.safetensors`."""
        folder = self.run.root
        newest = latest_checkpoint(folder)
        if newest is None or not read_progress(newest).get("best_step") or is_intact(folder, BEST_FILE, remedy=BEFORE_BEST):
            return newest
        return latest_checkpoint(folder, lambda path: not read_progress(path).get("best_step"))

    def update(
        self, loss: PartialLoss | Iterator[PartialLoss] | FinishedBackward, multiplier: float, termination: Termination
    ) -> bool:
        """Do one update, or count the step as skipped if its gradient is not finite.

        Returns:
            Whether some process received a SIGTERM.
        """
        sums = loss.sums if isinstance(loss, FinishedBackward) else self._backward(loss)
        limit = math.inf if self.config.clip_norm is None else self.config.clip_norm
        norm = whole(nn.utils.clip_grad_norm_(self.optimizer.parameters, limit, foreach=True))
        metrics, stop, self.is_due = self._reduced(sums, norm, {"stop": termination.requested, "due": self._is_due()})
        if math.isfinite(metrics["gradient_norm"]):
            self.optimizer.step(multiplier)
            self.state.window.append(metrics)
            self.state.skipped_in_a_row = 0
        else:
            self.optimizer.zero_grad()
            self.state.count_skip(self.config, self.setup.num_steps, self.description)
        self.state.step += 1
        if self.average:
            self.average.update(self.state.step)
        return stop

    def _backward(self, terms: PartialLoss | Iterator[PartialLoss]) -> dict[str, Tensor]:
        """Accumulate the gradients of all terms; return the sums of loss and metrics."""
        sums: dict[str, Tensor] = {}
        for loss, metrics in [terms] if isinstance(terms, tuple) else terms:
            # DDP and FSDP average gradients over processes, but the losses of the processes are terms of a sum
            (loss if self.processes.size == 1 else loss * self.processes.size).backward()
            for name, scalar in {"loss": loss, **metrics}.items():
                sums[name] = sums[name] + scalar.detach() if name in sums else scalar.detach()
        return sums

    def _reduced(self, sums: dict[str, Tensor], norm: Tensor, flags: dict[str, bool]) -> tuple[dict[str, float], bool, bool]:
        """Return the metrics summed over all processes, and whether any process is to stop and any has a save due."""
        if self.processes.size > 1:
            sums = sums | {name: norm.new_tensor(float(flag)) for name, flag in flags.items()}
        totals = self.processes.sum(torch.stack([scalar.float() for scalar in sums.values()]))
        # copy all metrics off the device at once: each copy would wait for the GPU
        values = torch.cat([norm.detach().float()[None], totals]).tolist()
        metrics = dict(zip(["gradient_norm", *sums], values, strict=True))
        stop, due = (metrics.pop(name, float(flag)) > 0 for name, flag in flags.items())
        return {"loss": metrics["loss"], **metrics}, stop, due

    def after_step(self) -> None:
        """Log, validate and save if it is time; always after the last step."""
        last = self.state.step == self.setup.num_steps
        if last or self.state.step % self.config.log_every == 0:
            self._report()
        every = self.config.validate_every
        if self.setup.validate and every and (last or self.state.step % every == 0):
            with self.meter.paused():
                self._validate(self.setup.validate)
        if self.writer and (self._is_planned(self.state.step) or (self.is_due and not last)):
            with self.meter.paused():
                self._save(self.writer)

    def _is_planned(self, step: int) -> bool:
        """Return whether a checkpoint is saved after this step however long the steps take."""
        every = self.config.checkpoint_every
        if step == self.setup.num_steps:
            return not self.run.is_scratch
        return every is not None and step % every == 0

    def _is_due(self) -> bool:
        """Return whether it is time for a checkpoint."""
        return time.monotonic() >= self.due_at

    def stop(self) -> None:
        """Save the finished step unless it is already saved, and raise `Preempted`."""
        if self.writer and self.saved != self.state.step:
            self._save(self.writer)
        if self.writer:
            self.writer.wait()
        self.processes.barrier()
        message = f"{self.description}: stopped by SIGTERM; step {self.state.step} is saved. Run the same command to resume."
        logger.warning(message)
        raise Preempted(message)

    def close(self) -> None:
        """Wait for the checkpoint in progress after an error, too: the next training in this process may claim the folder."""
        if self.writer:
            self.writer.close()

    def keep_trace(self, path: Path) -> None:
        """Hand a finished profiler trace to the log."""
        logger.info("%s: wrote the trace of %d steps to %s.", self.description, self.profile_steps, path)
        if self.processes.is_first:
            self.run.log.log_file(path, f"profile/{path.name}")

    def finish(self) -> None:
        """Leave the averaged weights in the model and the curves on disk."""
        if self.writer:
            self.writer.wait()
            if self.processes.is_first and self.run.root.is_dir():
                self.writer.remove_old()  # if an earlier process was killed before it could
        if self.average:
            self.model.load_state_dict(self.average.tensors, strict=False)
        path = self.run.history if self.run.is_scratch else self.run.folder and self.run.folder / HISTORY_FILE
        if path and self.processes.is_first:
            write_recorded_json(path.parent, path.name, self.state.history)

    def progress_note(self) -> str:
        """Return the text beside the rate on the progress bar."""
        loss = self.state.recent_loss()
        return "no loss yet" if loss is None else f"loss {loss:.4g}"

    def _report(self) -> None:
        """Log the means since the last report."""
        num_steps = self.state.step - self.reported
        self._record(self.state.take_means() | {"skipped_steps": self.state.skipped_steps})
        if self.processes.is_first and num_steps:  # not part of the history, because no two runs are equally fast
            self.run.log.log_metrics(self.meter.metrics(num_steps, self.processes.size), self.state.step)
        self.reported = self.state.step

    def _validate(self, validate: Validation) -> None:
        """Validate with the averaged weights, if averaging is on, and keep the weights if they are the best so far."""
        self.model.eval()
        with torch.no_grad(), self.average.applied() if self.average else nullcontext():
            metrics = validate()
            if metrics["loss"] < self.state.best_loss:
                self.state.best_loss, self.state.best_step = metrics["loss"], self.state.step
                if self.run.folder:
                    self._save_best(self.run.folder / BEST_FILE)
        self.model.train()
        self._record({f"validation/{name}": value for name, value in metrics.items()})
        logger.info("%s: step %d, validation loss %.4f.", self.description, self.state.step, metrics["loss"])

    def _save_best(self, path: Path) -> None:
        tensors = self.model.state_dict()
        if self.processes.size > 1:
            tensors = whole_tensors(tensors, self.processes)
        if self.processes.is_first:
            if self.writer:  # which updates the same record in the background
                self.writer.wait()
            save_tensors(tensors, path)

    def _record(self, metrics: dict[str, float]) -> None:
        self.state.history.append({"step": self.state.step, **metrics})
        if self.processes.is_first:
            self.run.log.log_metrics(metrics, self.state.step)

    def _tensors(self) -> TensorGroups:
        tensors = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_tensors()}
        return tensors | ({"average": self.average.tensors} if self.average else {})

    def _log_saved(self, step: int) -> None:
        logger.info("%s: checkpoint at step %d.", self.description, step)

    def _save(self, writer: CheckpointWriter) -> None:
        began, values = time.monotonic(), self.state.as_json()
        writer.save(Checkpoint(values.pop("step"), self._tensors(), values))
        self.saved, now = self.state.step, time.monotonic()
        self.due_at = now + max(self.config.checkpoint_seconds or math.inf, (now - began) / MAX_SAVING_SHARE)
