"""The prediction task: one registered object that carries all that evaluation, report and gallery need of it.

A task is named after its input and its target, e.g. `rgb->depth`. Several tasks may score the same prediction: a task with a
`variant`, e.g. `rgb->clip/zero_shot`, adds its metrics to those of `rgb->clip`.
"""

# N samples, H height, W width

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from fourfold.configuration import Config
from fourfold.evaluation.samples import Samples
from fourfold.labelers.protocol import ImageTextEncoder
from fourfold.metrics.metric import Metric
from fourfold.metrics.statistics import Statistic
from fourfold.modalities import LABELS
from fourfold.plugins import Registry


class ScoringConfig(Config):
    """Settings that the scores read."""

    recall_k: int = Field(10, ge=1)  # of retrieval: the right item counts when it is among the k nearest
    min_shown_share: float = Field(0.005, ge=0, le=1)  # share of the pixels from which a class counts as shown


@dataclass(frozen=True)
class TaskContext:
    """What a task may read when it scores."""

    samples: Samples
    encoder: ImageTextEncoder | None
    config: ScoringConfig = field(default_factory=ScoringConfig)
    relative_depth: bool = False  # depth has no unit: every column is scaled and shifted to the truth, image by image

    @property
    def text_encoder(self) -> ImageTextEncoder:
        """The encoder, for tasks with `needs_encoder`; they are not selected without one."""
        assert self.encoder is not None
        return self.encoder


def _same(prediction: Any, context: TaskContext) -> Any:
    return prediction


@dataclass(frozen=True)
class PredictionTask:
    """One input → target pair with its metrics, its baselines, its requirements and its presentation."""

    source: str  # label of the input: "rgb" or "caption"
    target: str  # label that the model predicts
    metrics: tuple[Metric, ...]  # all that `score` returns; the first is the main one
    score: Callable[[Any, TaskContext], dict[str, Statistic]]  # answers of all samples → statistics by metric
    trivial: Callable[[Samples], Any]  # validation samples → the best single answer that ignores the input
    teacher: Callable[[TaskContext], Any] | None = None  # what the labelers predict; None: nobody predicts this target
    interpret: Callable[[Any, TaskContext], Any] = _same  # predictions of model and teacher → answers that are scored
    against_teacher: tuple[str, ...] = ()  # metrics whose reference is the teacher's answer: no teacher's value there

    # A task is skipped when one of these is missing.
    labels: tuple[str, ...] = ()  # labels that it reads
    truth: tuple[str, ...] = ()  # exact truth where the source has it, otherwise labels
    exact_truth: tuple[str, ...] = ()  # exact truth alone, e.g. attributes that no labeler predicts
    needs_encoder: bool = False  # reads `TaskContext.text_encoder`

    variant: str = ""  # distinguishes tasks of one pair
    replaces: tuple[str, ...] = ()  # names of tasks that are not scored where this one is
    random_stream: str = ""  # of the bootstrap; default: the name

    headline: bool = False  # the main metric is shown at the top of the report
    gallery_title: str | None = None  # column of the gallery; None: not shown there
    draw: Callable[[Any], np.ndarray] | None = None  # one value → uint8 (H, W, 3); default: by the kind of the label

    @property
    def reads_captions(self) -> bool:
        """Whether samples without a caption cannot be scored."""
        return "caption" in (self.source, self.target)

    @property
    def pair(self) -> str:
        """Input and target, e.g. `rgb->depth`: the key in metrics.json."""
        return f"{self.source}->{self.target}"

    @property
    def name(self) -> str:
        """The name in the registry, e.g. `rgb->depth` or `rgb->clip/zero_shot`."""
        return f"{self.pair}/{self.variant}" if self.variant else self.pair

    def missing(self, samples: Samples, encoder: ImageTextEncoder | None) -> list[str]:
        """Return what the task requires and the samples do not have, as words for a log line."""
        found = [f"the label {name!r}" for name in self.labels if name not in samples.labels]
        found += [f"{name!r} (truth or label)" for name in self.truth if name not in samples.truth]
        found += [f"exact truth {name!r}" for name in self.exact_truth if not samples.exact or name not in samples.truth]
        found += ["captions"] if self.reads_captions and not samples.is_captioned.any() else []
        return found + (["a text encoder"] if self.needs_encoder and encoder is None else [])


PREDICTION_TASKS: Registry[PredictionTask] = Registry(
    "evaluation task", "Register it in a plug-in; see docs/guides/add-an-evaluation-task.md."
)


def select_tasks(
    samples: Samples, encoder: ImageTextEncoder | None, tasks: Iterable[PredictionTask] | None = None
) -> tuple[list[PredictionTask], dict[str, str]]:
    """Return the tasks that can be scored, in the order of the table of modalities, and why the others are skipped.

    Args:
        samples: what is scored.
        encoder: the text encoder, None without one.
        tasks: the tasks to choose from; all registered ones by default.
    """
    candidates = [task for _, task in PREDICTION_TASKS.items()] if tasks is None else list(tasks)
    missing = {task.name: task.missing(samples, encoder) for task in candidates}
    skipped = {name: f"it requires {', '.join(words)}" for name, words in missing.items() if words}
    chosen = [task for task in candidates if task.name not in skipped]
    replaced = {name: task.name for task in chosen for name in task.replaces}
    skipped |= {name: f"{other} replaces it" for name, other in replaced.items()}
    chosen = [task for task in chosen if task.name not in replaced]
    order = {name: index for index, name in enumerate(LABELS)}
    return sorted(chosen, key=lambda task: (order[task.source], order[task.target], task.variant)), skipped


def task_pairs(tasks: Iterable[PredictionTask]) -> list[tuple[str, str]]:
    """Return the (source, target) pairs of some tasks, each once, in their order: what the model has to predict."""
    return list(dict.fromkeys((task.source, task.target) for task in tasks))


def pair_metrics(pair: str) -> list[Metric]:
    """Return the metrics of all registered tasks of a pair, e.g. of `rgb->clip`."""
    return [metric for _, task in PREDICTION_TASKS.items() if task.pair == pair for metric in task.metrics]
