"""The transfer task: one registered object that carries all that fine-tuning and the report need of it.

Examples are made from the images and the exact truth of the `transfer_*` splits. A text task asks for a text, possibly about a
question; a classification task asks for a class of each of its attributes.
"""

# N examples, H height, W width

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from fourfold.data.shards import ShardSet
from fourfold.metrics.metric import Metric
from fourfold.plugins import Registry
from fourfold.seeds import numpy_generator

Choices = Mapping[str, tuple[Any, ...]]  # attribute → its classes


@dataclass(frozen=True)
class Targets:
    """What is asked and answered about N images, in their order. Text tasks fill `answers`, classification tasks `classes`."""

    prompts: list[str] = field(default_factory=list)  # "" where nothing is asked
    answers: list[str] = field(default_factory=list)
    classes: dict[str, np.ndarray] = field(default_factory=dict)  # by attribute, int64 (N,) indices into its choices


@dataclass(frozen=True)
class Examples:
    """N examples of one task, at most one per image: images uint8 (N, H, W, 3) and what is asked about them."""

    rgb: np.ndarray
    prompts: list[str]
    answers: list[str]
    classes: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.rgb)

    def subset(self, indices: np.ndarray) -> "Examples":
        """Return some of the examples, in the order of `indices`."""
        texts = [[column[i] for i in indices] if column else [] for column in (self.prompts, self.answers)]
        return Examples(self.rgb[indices], texts[0], texts[1], {name: column[indices] for name, column in self.classes.items()})


@dataclass(frozen=True)
class TransferTask:
    """What a task asks about an image, and how answers are scored."""

    name: str
    title: str  # in the report
    metrics: tuple[Metric, ...]  # all that `score` returns, higher is better; the first chooses learning rates
    make_targets: Callable[[list[Any], int], Targets]  # truth of N images, seed → N targets
    score: Callable[[Any, Examples], dict[str, float]]  # texts, or classes by attribute int64 (N,) → metrics
    choices: Choices = field(default_factory=dict)  # of a classification task; empty: a text task
    truth: str = "attributes"  # the kind of exact truth that `make_targets` reads

    @property
    def kind(self) -> Literal["text", "classes"]:
        """Whether an answer is a text or a class for each attribute."""
        return "classes" if self.choices else "text"

    @property
    def main_metric(self) -> str:
        """The name of the metric that chooses learning rates on `transfer_val` and has a chart in the report."""
        return self.metrics[0].name


TRANSFER_TASKS: Registry[TransferTask] = Registry(
    "transfer task", "Register it in a plug-in; see docs/guides/add-a-transfer-task.md."
)


@dataclass(frozen=True)
class TransferData:
    """Images and exact truth of the splits `transfer_train`, `transfer_val` and `transfer_test`."""

    shards: ShardSet
    truth: ShardSet


def load_examples(task: TransferTask, data: TransferData, split: str, max_examples: int, seed: int) -> Examples:
    """Return examples of a split, one per image, drawn at random; in the order of the shards.

    Args:
        task: makes the examples from the truth.
        data: images and truth.
        split: e.g. `transfer_train`.
        max_examples: how many examples to return at most.
        seed: determines the images and what is asked about them.

    Raises:
        ValueError: images and truth do not have the same keys.
    """
    keys = data.shards.keys(split)
    if data.truth.keys(split) != keys:
        raise ValueError(f"Images and truth of {split!r} have different keys. Run ingestion again.")
    chosen = np.sort(numpy_generator(seed, "transfer", split, "chosen").permutation(len(keys))[:max_examples])
    truth = data.truth.load_column(split, task.truth)
    targets = task.make_targets([truth[i] for i in chosen], seed)
    rgb = np.asarray(data.shards.load_column(split, "rgb"))[chosen]
    return Examples(rgb, targets.prompts, targets.answers, targets.classes)


def class_accuracies(predicted: Mapping[str, np.ndarray], examples: Examples) -> dict[str, float]:
    """Return `<attribute>_accuracy` of each attribute and their mean, `mean_accuracy`: the score of classification tasks."""
    each = {f"{name}_accuracy": float(np.mean(predicted[name] == column)) for name, column in examples.classes.items()}
    return {**each, "mean_accuracy": float(np.mean(list(each.values())))}
