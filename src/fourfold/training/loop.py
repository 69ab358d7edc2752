"""The one training loop: 4M, tokenizers, teachers and fine-tuning all run through `train`.

A run is a pure function of its inputs: batches come from a cursor, losses may draw from generators seeded by the step, and
a checkpoint holds all the rest. So a run that was killed after any step ends in the same bytes as one that was not.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fourfold.configuration import Config
from fourfold.data.cursor import Cursor
from fourfold.metric_log import MetricLog, NullMetricLog
from fourfold.progress import progress
from fourfold.storage import write_json
from fourfold.training.averaging import WeightAverage
from fourfold.training.checkpoints import Checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint, save_tensors
from fourfold.training.optimizers import OptimizerSet
from fourfold.training.precision import subnormals_as_zero

logger = logging.getLogger(__name__)
Batch = TypeVar("Batch")

BEST_FILE = "best.safetensors"  # weights at the lowest validation loss (averaged ones, if averaging is on)
HISTORY_FILE = "history.json"

LossFunction = Callable[[Batch, int], tuple[Tensor, dict[str, Tensor]]]  # (batch, step) → what to minimise, what to report
BatchSource = Callable[[Cursor], Iterable[tuple[Batch, Cursor]]]  # endless; each batch with the cursor behind it
Validation = Callable[[], dict[str, float]]  # must hold "loss", lower is better


class LoopConfig(Config):
    """How long to train and what to keep of it. Everything is counted in steps."""

    num_steps: int = Field(ge=0)
    clip_norm: float | None = Field(default=1.0, gt=0)  # of the whole gradient; None: no clipping
    average_decay: float | None = Field(default=None, gt=0, lt=1)  # keep a moving average of the weights and validate with it
    log_every: int = Field(default=50, ge=1)
    validate_every: int | None = Field(default=None, ge=1)  # None: never; the last step is always validated otherwise
    checkpoint_every: int | None = Field(default=None, ge=1)  # None: only after the last step (when there is a folder)
    keep_checkpoints: int = Field(default=1, ge=1)
    max_skipped_share: float = Field(default=0.02, ge=0, le=1)  # of steps whose gradient is not finite; more is an error


@dataclass
class TrainingState:
    """What changes while training, beside the tensors; stored in every checkpoint. Also what `train` returns."""

    step: int = 0
    cursor: Cursor = field(default_factory=Cursor)
    skipped_steps: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    history: list[dict[str, float]] = field(default_factory=list)  # what was logged: {"step": ..., name: value}
    window: list[dict[str, float]] = field(default_factory=list)  # figures of the steps since the last log line

    def as_json(self) -> dict[str, Any]:
        """Return the state as JSON values."""
        return asdict(self) | {"best_loss": None if math.isinf(self.best_loss) else self.best_loss}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TrainingState":
        """Return the state that `as_json` wrote."""
        best = math.inf if values["best_loss"] is None else values["best_loss"]
        return cls(**values | {"cursor": Cursor(**values["cursor"]), "best_loss": best})


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
) -> TrainingState:
    """Train `model` in place for `config.num_steps` steps, going on from the newest checkpoint in `folder` if there is one.

    `compute_loss(batch, step)` returns the loss and named figures to report, all scalars (what it draws at random must come
    from a generator seeded by the step, or resuming is not exact). `schedule(step)` multiplies the
    learning rates. `folder` must belong to this very run (`storage.claim`); None keeps nothing on disk. With `validate` and
    `validate_every`, the weights of the lowest validation loss are in `folder/best.safetensors`. Afterwards `model` holds the
    last weights, averaged ones if averaging is on. Raises FloatingPointError when too many steps had to be skipped.
    """
    run = _Run(model, optimizer, config, folder, log or NullMetricLog(), validate, description)
    run.resume()
    model.train()
    left = config.num_steps - run.state.step
    source = iter(batches(run.state.cursor)) if left > 0 else iter(())
    bar = progress(_take(source, left), description, config.num_steps, "steps", run.state.step, note=run.note)
    with subnormals_as_zero():
        for batch, cursor in bar:
            loss, figures = compute_loss(batch, run.state.step)
            run.learn(loss, figures, schedule(run.state.step))
            run.state.cursor = cursor
            run.after_step()
        run.finish()
    return run.state


def _take(source: Iterator[Any], count: int) -> Iterator[Any]:
    for _ in range(count):
        yield next(source)


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
    state: TrainingState = field(default_factory=TrainingState)

    def __post_init__(self) -> None:
        decay = self.config.average_decay
        self.average = WeightAverage(self.model, decay) if decay is not None else None
        self.parameters = self.optimizer.parameters

    def resume(self) -> None:
        """Take over the newest checkpoint, if there is one."""
        path = latest_checkpoint(self.folder) if self.folder else None
        if path is None:
            return
        checkpoint = load_checkpoint(path)
        self.model.load_state_dict(checkpoint.tensors["model"])
        self.optimizer.load_state_tensors(checkpoint.tensors.get("optimizer", {}))
        if self.average:
            self.average.load(checkpoint.tensors["average"])
        self.state = TrainingState.from_json(checkpoint.progress | {"step": checkpoint.step})
        logger.info("%s: going on from step %d of %d.", self.description, checkpoint.step, self.config.num_steps)

    def learn(self, loss: Tensor, figures: dict[str, Tensor], factor: float) -> None:
        """One update; a gradient that is not finite is not used, but counted."""
        loss.backward()
        limit = math.inf if self.config.clip_norm is None else self.config.clip_norm
        norm = nn.utils.clip_grad_norm_(self.parameters, limit, foreach=True)
        scalars = {"loss": loss, "gradient_norm": norm, **figures}
        # one copy off the device for all figures: each would wait for the GPU
        values = torch.stack([scalar.detach().float() for scalar in scalars.values()]).tolist()
        if math.isfinite(values[1]):
            self.optimizer.step(factor)
            self.state.window.append(dict(zip(scalars, values, strict=True)))
        else:
            self.optimizer.zero_grad()
            self._count_skip()
        self.state.step += 1
        if self.average:
            self.average.update(self.state.step)

    def _count_skip(self) -> None:
        self.state.skipped_steps += 1
        allowed = self.config.max_skipped_share * self.config.num_steps
        if self.state.skipped_steps > max(1.0, allowed):
            raise FloatingPointError(
                f"{self.description}: {self.state.skipped_steps} gradients up to step {self.state.step} were not finite "
                f"(at most {allowed:.0f} are allowed). Lower the learning rate or use fp32."
            )

    def after_step(self) -> None:
        """Log, validate and save when it is time to; the last step always is."""
        last = self.state.step == self.config.num_steps
        if last or self.state.step % self.config.log_every == 0:
            self._report()
        every = self.config.validate_every
        if self.validate and every and (last or self.state.step % every == 0):
            self._validate(self.validate)
        every = self.config.checkpoint_every
        if self.folder and (last or (every and self.state.step % every == 0)):
            self._save(self.folder)

    def finish(self) -> None:
        """Leave the averaged weights in the model and the curves on disk."""
        if self.average:
            self.model.load_state_dict(self.average.tensors, strict=False)
        if self.folder:
            write_json(self.folder / HISTORY_FILE, self.state.history)

    def note(self) -> str:
        """What the progress line says beside the rate."""
        losses = [figures["loss"] for figures in self.state.window] or self._loss_of_last_report()
        return f"loss {sum(losses) / len(losses):.4g}" if losses else "no loss yet"

    def _loss_of_last_report(self) -> list[float]:
        return next(([figures["loss"]] for figures in reversed(self.state.history) if "loss" in figures), [])

    def _report(self) -> None:
        """Log the means since the last report; a figure that only some steps have is averaged over those."""
        names = dict.fromkeys(name for figures in self.state.window for name in figures)
        found = {name: [figures[name] for figures in self.state.window if name in figures] for name in names}
        means = {name: sum(values) / len(values) for name, values in found.items()} | {
            "skipped_steps": self.state.skipped_steps
        }
        self.state.window.clear()
        self._record(means)

    def _validate(self, validate: Validation) -> None:
        self.model.eval()
        with torch.no_grad(), self.average.applied() if self.average else nullcontext():
            figures = validate()
            if figures["loss"] < self.state.best_loss:
                self.state.best_loss, self.state.best_step = figures["loss"], self.state.step
                if self.folder:
                    save_tensors(self.model.state_dict(), self.folder / BEST_FILE)
        self.model.train()
        self._record({f"validation/{name}": value for name, value in figures.items()})
        logger.info("%s: step %d, validation loss %.4f.", self.description, self.state.step, figures["loss"])

    def _record(self, figures: dict[str, float]) -> None:
        self.state.history.append({"step": self.state.step, **figures})
        self.log.log_metrics(figures, self.state.step)

    def _save(self, folder: Path) -> None:
        tensors = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_tensors()}
        if self.average:
            tensors["average"] = self.average.tensors
        progress_json = self.state.as_json()
        progress_json.pop("step")
        save_checkpoint(Checkpoint(self.state.step, tensors, progress_json), folder, self.config.keep_checkpoints)
        logger.info("%s: checkpoint at step %d.", self.description, self.state.step)
