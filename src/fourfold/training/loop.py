"""The one training loop: 4M, tokenizers, teachers and fine-tuning all run through `train`.

A run is a pure function of its inputs: batches come from a cursor, losses may draw from generators seeded by the step, and
a checkpoint holds all the rest. So a run that was killed after any step ends in the same bytes as one that was not.

Several processes may run it together (`ProcessGroup`): each computes its part of every step's loss, and the parts add up.
The number of processes changes the last bits at most, so a run may resume with another number of them.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fourfold.data.cursor import Cursor
from fourfold.metric_log import MetricLog, NullMetricLog
from fourfold.progress import progress
from fourfold.storage import write_json
from fourfold.training.checkpoints import Checkpoint, CheckpointWriter, Parts, latest_checkpoint, restore, save_tensors
from fourfold.training.config import LoopConfig
from fourfold.training.optimizers import OptimizerSet
from fourfold.training.parallel import whole, whole_tensors
from fourfold.training.performance import Meter, profiling
from fourfold.training.precision import subnormals_as_zero
from fourfold.training.preemption import Preempted, Termination, noticing_termination
from fourfold.training.process_group import ProcessGroup
from fourfold.training.state import TrainingState, WeightAverage

logger = logging.getLogger(__name__)
Batch = TypeVar("Batch")

BEST_FILE = "best.safetensors"  # weights at the lowest validation loss (averaged ones, if averaging is on)
HISTORY_FILE = "history.json"
TRACE_FILE = "profile/rank-{}.json.gz"

Part = tuple[Tensor, dict[str, Tensor]]  # what to minimize, what to report
# (batch, step) → the loss; or several parts of it that add up, one backward pass each (gradient accumulation)
LossFunction = Callable[[Batch, int], Part | Iterator[Part]]
BatchSource = Callable[[Cursor], Iterable[tuple[Batch, Cursor]]]  # endless; each batch with the cursor behind it
Validation = Callable[[], dict[str, float]]  # must hold "loss", lower is better


def train(
    model: nn.Module,
    compute_loss: LossFunction,
    batches: BatchSource,
    optimizer: OptimizerSet,
    schedule: Callable[[int], float],
    config: LoopConfig,
    *,
    folder: Path | None = None,
    log: MetricLog | None = None,
    validate: Validation | None = None,
    description: str = "training",
    world: ProcessGroup | None = None,
    meter: Meter | None = None,
) -> TrainingState:
    """Train `model` in place for `config.num_steps` steps, going on from the newest checkpoint in `folder` if there is one.

    `compute_loss(batch, step)` returns the loss and named figures to report, all scalars (what it draws at random must come
    from a generator seeded by the step, or resuming is not exact), or yields parts of them that add up. `schedule(step)`
    multiplies the learning rates. `folder` must belong to this very run (`storage.claim`); None keeps nothing on disk. With
    `validate` and `validate_every`, the weights of the lowest validation loss are in `folder/best.safetensors`. Afterwards
    `model` holds the last weights, averaged ones if averaging is on.

    With a `world` of several processes, `model` is laid out on them (`ParallelModel`), the parts that their `compute_loss` give
    add up to the loss and figures of the step, `folder` is seen by all and written by the first.

    Raises FloatingPointError when too many steps had to be skipped, and `Preempted` after a SIGTERM, once the finished step
    is saved in `folder`.
    """
    world = world or ProcessGroup()
    meter = meter or Meter(next(model.parameters()).device)
    run = _Run(model, optimizer, config, folder, log or NullMetricLog(), validate, description, world, meter)
    run.resume()
    model.train()
    left = config.num_steps - run.state.step
    source = iter(batches(run.state.cursor)) if left > 0 else iter(())
    trace = (folder or Path()) / TRACE_FILE.format(world.rank)
    steps = _take(source, left, meter)
    bar = progress(steps, description, config.num_steps, "steps", run.state.step, run.note) if world.is_first else steps
    with (
        subnormals_as_zero(),
        noticing_termination(folder is not None) as termination,
        profiling(config.profile_steps if folder else 0, trace, run.keep_trace) as traced,
    ):
        for batch, cursor in bar:
            stop = run.learn(compute_loss(batch, run.state.step), schedule(run.state.step), termination)
            run.state.cursor = cursor
            run.after_step()
            traced()
            if stop:
                run.leave()
        run.finish()
    return run.state


def _take(source: Iterator[Any], count: int, meter: Meter) -> Iterator[Any]:
    for _ in range(count):
        with meter.waiting():
            item = next(source)
        yield item


@dataclass
class _Run:
    """One run's moving parts; `train` above tells the order in which they move."""

    model: nn.Module
    optimizer: OptimizerSet
    config: LoopConfig
    folder: Path | None
    log: MetricLog
    validate: Validation | None
    description: str
    world: ProcessGroup
    meter: Meter
    state: TrainingState = field(default_factory=TrainingState)

    def __post_init__(self) -> None:
        decay = self.config.average_decay
        self.average = WeightAverage(self.model, decay) if decay is not None else None
        self.parameters = self.optimizer.parameters
        keep = self.config.keep_checkpoints
        self.writer = None if self.folder is None else CheckpointWriter(self.folder, keep, self.world, self._say_saved)
        self.saved = self.reported = 0  # steps done when that was last

    def resume(self) -> None:
        """Take over the newest checkpoint, if there is one."""
        path = self.world.agreed(latest_checkpoint(self.folder) if self.folder else None)
        if path is None:
            return
        self.state = TrainingState.from_json(restore(path, self._tensors()))
        self.saved = self.reported = self.state.step
        logger.info("%s: going on from step %d of %d.", self.description, self.state.step, self.config.num_steps)

    def learn(self, found: Part | Iterator[Part], factor: float, termination: Termination) -> bool:
        """One update; a gradient that is not finite is not used, but counted. Returns whether some process was told to stop."""
        sums = self._backward(found)
        limit = math.inf if self.config.clip_norm is None else self.config.clip_norm
        norm = whole(nn.utils.clip_grad_norm_(self.parameters, limit, foreach=True))
        figures, told = self._shared(sums, norm, termination.requested)
        if math.isfinite(figures["gradient_norm"]):
            self.optimizer.step(factor)
            self.state.window.append(figures)
            self.state.skipped_in_a_row = 0
        else:
            self.optimizer.zero_grad()
            self.state.count_skip(self.config, self.description)
        self.state.step += 1
        if self.average:
            self.average.update(self.state.step)
        return told

    def _backward(self, found: Part | Iterator[Part]) -> dict[str, Tensor]:
        """Add up the gradients of all parts; return the sums of loss and figures."""
        sums: dict[str, Tensor] = {}
        for loss, figures in [found] if isinstance(found, tuple) else found:
            # processes will take the mean of their gradients, but their losses are parts of a sum
            (loss if self.world.size == 1 else loss * self.world.size).backward()
            for name, scalar in {"loss": loss, **figures}.items():
                sums[name] = sums[name] + scalar.detach() if name in sums else scalar.detach()
        return sums

    def _shared(self, sums: dict[str, Tensor], norm: Tensor, told: bool) -> tuple[dict[str, float], bool]:
        """Return the figures of all processes together, and whether any was told to stop."""
        if self.world.size > 1:
            sums = sums | {"told": norm.new_tensor(float(told))}
        totals = self.world.sum(torch.stack([scalar.float() for scalar in sums.values()]))
        # one copy off the device for all figures: each would wait for the GPU
        values = torch.cat([norm.detach().float()[None], totals]).tolist()
        found = dict(zip(["gradient_norm", *sums], values, strict=True))
        told = found.pop("told", float(told)) > 0
        return {"loss": found["loss"], **found}, told

    def after_step(self) -> None:
        """Log, validate and save when it is time to; the last step always is."""
        last = self.state.step == self.config.num_steps
        if last or self.state.step % self.config.log_every == 0:
            self._report()
        every = self.config.validate_every
        if self.validate and every and (last or self.state.step % every == 0):
            with self.meter.aside():
                self._validate(self.validate)
        every = self.config.checkpoint_every
        if self.writer and (last or (every and self.state.step % every == 0)):
            with self.meter.aside():
                self._save(self.writer)

    def leave(self) -> None:
        """Save the step that was finished, if it is not, and raise `Preempted`."""
        if self.writer and self.saved != self.state.step:
            self._save(self.writer)
        if self.writer:
            self.writer.wait()
        self.world.wait()
        message = f"{self.description}: told to stop after step {self.state.step}, which is saved. Start it again."
        logger.warning(message)
        raise Preempted(message)

    def keep_trace(self, path: Path) -> None:
        """Hand the trace of some steps on."""
        logger.info("%s: the trace of %d steps is in %s.", self.description, self.config.profile_steps, path)
        if self.world.is_first:
            self.log.log_file(path, f"profile/{path.name}")

    def finish(self) -> None:
        """Leave the averaged weights in the model and the curves on disk."""
        if self.writer:
            self.writer.wait()
        if self.average:
            self.model.load_state_dict(self.average.tensors, strict=False)
        if self.folder and self.world.is_first:
            write_json(self.folder / HISTORY_FILE, self.state.history)

    def note(self) -> str:
        """What the progress line says beside the rate."""
        loss = self.state.recent_loss()
        return "no loss yet" if loss is None else f"loss {loss:.4g}"

    def _report(self) -> None:
        """Log the means since the last report."""
        num_steps = self.state.step - self.reported
        self._record(self.state.take_means() | {"skipped_steps": self.state.skipped_steps})
        if self.world.is_first and num_steps:  # not part of the history: no two runs are equally fast
            self.log.log_metrics(self.meter.figures(num_steps, self.world.size), self.state.step)
        self.reported = self.state.step

    def _validate(self, validate: Validation) -> None:
        self.model.eval()
        with torch.no_grad(), self.average.applied() if self.average else nullcontext():
            figures = validate()
            if figures["loss"] < self.state.best_loss:
                self.state.best_loss, self.state.best_step = figures["loss"], self.state.step
                if self.folder:
                    self._save_best(self.folder / BEST_FILE)
        self.model.train()
        self._record({f"validation/{name}": value for name, value in figures.items()})
        logger.info("%s: step %d, validation loss %.4f.", self.description, self.state.step, figures["loss"])

    def _save_best(self, path: Path) -> None:
        tensors = self.model.state_dict()
        if self.world.size > 1:
            tensors = whole_tensors(tensors, self.world)
        if self.world.is_first:
            save_tensors(tensors, path)

    def _record(self, figures: dict[str, float]) -> None:
        self.state.history.append({"step": self.state.step, **figures})
        if self.world.is_first:
            self.log.log_metrics(figures, self.state.step)

    def _tensors(self) -> Parts:
        tensors = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_tensors()}
        return tensors | ({"average": self.average.tensors} if self.average else {})

    def _say_saved(self, step: int) -> None:
        logger.info("%s: checkpoint at step %d.", self.description, step)

    def _save(self, writer: CheckpointWriter) -> None:
        progress_json = self.state.as_json()
        writer.save(Checkpoint(progress_json.pop("step"), self._tensors(), progress_json))
        self.saved = self.state.step
