"""The transfer task: one registered object that carries all that fine-tuning and the report need of it.

Examples are made from the images and the exact truth of the `transfer_*` splits, or from the annotations or labels that
come with the data (`fourfold.transfer.annotated`, `fourfold.transfer.labeled`); those of a public benchmark are read from its
files (`fourfold.transfer.benchmarks`). A text task asks for a text, possibly about a question; a classification task asks for a
class of each of its attributes; a task with `answers` asks for one of them; any other task has a head that predicts its labels,
e.g. maps (`fourfold.transfer.heads`).
"""

# N examples, H height, W width

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from fourfold.data.annotations import ANNOTATIONS
from fourfold.data.missing import Missing
from fourfold.data.shards import ShardSet
from fourfold.metrics.metric import Metric
from fourfold.metrics.statistics import mean, value
from fourfold.plugins import Registry
from fourfold.seeds import numpy_generator
from fourfold.transfer.benchmark_settings import TrainedBenchmarkConfig
from fourfold.transfer.examples import Examples, ExampleSource, Targets
from fourfold.transfer.head_sizes import HeadsConfig

Choices = Mapping[str, tuple[Any, ...]]  # attribute → its classes
TRAIN = "transfer_train"
OWN_SPLITS = {TRAIN: "train", "transfer_val": "val", "transfer_test": "test"}  # of the source, for its annotations
MAX_POOL = 20_000  # annotated images in memory


@dataclass(frozen=True)
class AnnotatedTask:
    """Which images of the splits `train`, `val` and `test` a task learns from: those with an annotation of a kind."""

    name: str  # of the annotation, see `fourfold.data.annotations`
    is_used: Callable[[Any], bool] = bool  # whether an annotation is one that the task asks for


class Stream(Protocol):
    """What a task learns from and is scored on when it does not fit in memory (`fourfold.transfer.benchmarks`)."""

    def digest(self) -> str:
        """Return a digest of the names and annotations of all examples."""

    def pool(self, task: "TransferTask", side: int, seed: int) -> ExampleSource:
        """Return the examples of the training split without those that are held out; images of `side` × `side` pixels."""

    def score(self, task: "TransferTask", learner: Any, split: str, draw: "Scoring") -> dict[str, Any]:
        """Return the official result of a learner as a JSON value; its `scores` have a `value` for each metric.

        Args:
            task: the task of this stream.
            learner: a trained learner, in eval mode.
            split: `transfer_val` are the examples that are held out, `transfer_test` is the official split.
            draw: what else the scoring depends on.
        """


@dataclass(frozen=True)
class Scoring:
    """What the scoring of a learner on a stream depends on besides the examples."""

    side: int  # pixels of the images' sides
    seed: int  # of the comparison: determines the examples that are held out, and the intervals
    name: str  # of the run, in the report
    folder: Path  # gets the report


class Head(Protocol):
    """What a task puts on the feature maps of a network: `fourfold.transfer.heads` has those of the papers."""

    def require(self) -> None:
        """Raise ValueError when an optional package is missing that the head needs."""

    def build(self, width: int, config: HeadsConfig, labeled: ExampleSource) -> Any:
        """Return a module with `num_maps`, `loss(maps, labels)` and `predict(maps, size)`.

        `maps` are `num_maps` tensors (B, width, h, w), the output of the network last; `size` is that of the labels.

        Args:
            width: channels of the maps.
            config: sizes of heads.
            labeled: the examples of the training.
        """


@dataclass(frozen=True)
class TransferTask:
    """What a task asks about an image, and how answers are scored."""

    name: str
    title: str  # in the report
    metrics: tuple[Metric, ...]  # all that `score` returns; the first chooses learning rates
    make_targets: Callable[[list[Any], int], Targets]  # truth of N images, seed → N targets
    # texts, classes by attribute int64 (N,), or what the head predicts → metrics; NaN: nothing to compare
    score: Callable[[Any, Examples], dict[str, float]]
    choices: Choices = field(default_factory=dict)  # of a classification task
    head: Head | None = None  # predicts `labels`; without `choices` and `head` it is a text task
    truth: str = "attributes"  # the kind of exact truth that `make_targets` reads; `annotations`: those of the source
    annotated: AnnotatedTask | None = None  # reads annotations, not exact truth
    label: str | None = None  # reads labels of this modality of the splits `train`, `val` and `test`, not exact truth
    answers: tuple[str, ...] = ()  # from which the task of answering a question chooses
    stream: Stream | None = None  # reads files of a public benchmark while it learns, not shards
    check: Callable[[TrainedBenchmarkConfig], object] | None = None  # raises ValueError if data of the benchmark are missing
    # What depends on the data, e.g. the classes: (task, data) → the task, or why it is skipped
    resolve: Callable[["TransferTask", "TransferData"], "TransferTask | str"] | None = None

    @property
    def has_own_splits(self) -> bool:
        """Whether it learns from the splits of the source, so that the number of its examples depends on the data."""
        return self.annotated is not None or self.label is not None or self.stream is not None

    @property
    def kind(self) -> Literal["text", "classes", "labels", "answers"]:
        """Whether an answer is a text, a class for each attribute, something that a head predicts, or one of given answers."""
        if self.answers:
            return "answers"
        return "classes" if self.choices else "labels" if self.head else "text"

    @property
    def main_metric(self) -> Metric:
        """The metric that chooses learning rates on `transfer_val` and has a chart in the report."""
        return self.metrics[0]


TRANSFER_TASKS: Registry[TransferTask] = Registry(
    "transfer task",
    "Register it in a plug-in; see docs/guides/add-a-transfer-task.md. Public benchmarks: fourfold.transfer.benchmarks.",
)


@dataclass(frozen=True)
class TransferData:
    """Images, their exact truth in the splits `transfer_train`, `transfer_val` and `transfer_test`, and their labels."""

    shards: ShardSet
    truth: ShardSet
    labels: ShardSet | None = None  # of the splits `train`, `val` and `test`
    benchmarks: Mapping[str, TrainedBenchmarkConfig] = field(default_factory=dict)  # by task


def select_tasks(names: Iterable[str], data: TransferData) -> tuple[dict[str, TransferTask], dict[str, str]]:
    """Return the tasks that the data have examples of, by name, and why the others are skipped."""
    tasks, skipped = dict[str, TransferTask](), dict[str, str]()
    for name in names:
        task = TRANSFER_TASKS.get(name)
        found = task.resolve(task, data) if task.resolve else task
        if isinstance(found, TransferTask) and not found.has_own_splits and TRAIN not in data.truth.splits():
            found = f"the source has no split {TRAIN!r} with exact truth"
        if isinstance(found, str):
            skipped[name] = found
        else:
            tasks[name] = found
    return tasks, skipped


def annotation_counts(shards: ShardSet, split: str, name: str) -> Counter[str]:
    """Return how many images of a split have which annotation of a kind; lists count under "" as one."""
    if ANNOTATIONS not in shards.modalities(split):
        return Counter()
    notes = (sample[ANNOTATIONS] for sample in shards.iterate(split, [ANNOTATIONS]))
    return Counter(note[name] if isinstance(note[name], str) else "" for note in notes if name in note)


def num_examples(task: TransferTask, data: TransferData, split: str) -> int:
    """Return how many examples of a task a split has at most."""
    if task.label is not None:
        return min(len(labeled_positions(data, OWN_SPLITS[split], task.label)), MAX_POOL)
    if task.annotated is None:
        return data.shards.num_samples(split)
    return min(len(_annotated(task.annotated, data.shards, OWN_SPLITS[split])[0]), MAX_POOL)


def _annotated(wanted: AnnotatedTask, shards: ShardSet, split: str) -> tuple[np.ndarray, list[Any]]:
    """Return the positions in a split of the images that a task uses, int64 (N,), and their annotations."""
    positions, values = list[int](), list[Any]()
    for position, sample in enumerate(shards.iterate(split, [ANNOTATIONS])):
        annotation = sample[ANNOTATIONS].get(wanted.name)
        if annotation is not None and wanted.is_used(annotation):
            positions.append(position)
            values.append(annotation)
    return np.array(positions, np.int64), values


def _annotated_examples(task: TransferTask, data: TransferData, split: str, max_examples: int, seed: int) -> Examples:
    """Return examples of annotated images; images that are not drawn are not kept in memory."""
    assert task.annotated is not None
    positions, values = _annotated(task.annotated, data.shards, OWN_SPLITS[split])
    chosen = np.sort(numpy_generator(seed, "transfer", split, "annotated").permutation(len(positions))[:max_examples])
    wanted = set(positions[chosen].tolist())
    samples = enumerate(data.shards.iterate(OWN_SPLITS[split], ["rgb"]))
    rgb = np.stack([sample["rgb"] for position, sample in samples if position in wanted])
    targets = task.make_targets([values[i] for i in chosen], seed)
    return Examples(rgb, targets.prompts, targets.answers, targets.classes, targets.labels)


def labeled_positions(data: TransferData, split: str, modality: str) -> np.ndarray:
    """Return the positions in a split of the images that do not lack a label, int64 (N,)."""
    assert data.labels is not None
    labels = enumerate(data.labels.iterate(split, [modality]))
    return np.array([position for position, sample in labels if not isinstance(sample[modality], Missing)], np.int64)


def _labeled_examples(task: TransferTask, data: TransferData, split: str, max_examples: int, seed: int) -> Examples:
    """Return examples of labeled images; images and labels that are not drawn are not kept in memory."""
    assert task.label is not None and data.labels is not None
    own = OWN_SPLITS[split]
    if data.labels.keys(own) != data.shards.keys(own):
        raise ValueError(f"Images and labels of {own!r} have different keys. Run pseudo_labeling again.")
    order = numpy_generator(seed, "transfer", split, "labeled").permutation(data.shards.num_samples(own))
    drawn = order[np.isin(order, labeled_positions(data, own, task.label))]
    wanted = set(drawn[:max_examples].tolist())
    rgb, values = (
        [sample[name] for position, sample in enumerate(shards.iterate(own, [name])) if position in wanted]
        for shards, name in ((data.shards, "rgb"), (data.labels, task.label))
    )
    return Examples(np.stack(rgb), [], [], {}, task.make_targets(values, seed).labels)


def load_examples(task: TransferTask, data: TransferData, split: str, max_examples: int, seed: int) -> Examples:
    """Return examples of a split, one per image, drawn at random; in the order of the shards.

    Args:
        task: makes the examples from the truth.
        data: images and truth.
        split: e.g. `transfer_train`; for annotations and labels of the source this means `train`.
        max_examples: how many examples to return at most.
        seed: determines the images and what is asked about them.

    Raises:
        ValueError: images and truth do not have the same keys.
    """
    if task.annotated is not None:
        return _annotated_examples(task, data, split, min(max_examples, MAX_POOL), seed)
    if task.label is not None:
        return _labeled_examples(task, data, split, min(max_examples, MAX_POOL), seed)
    keys = data.shards.keys(split)
    if data.truth.keys(split) != keys:
        raise ValueError(f"Images and truth of {split!r} have different keys. Run ingestion again.")
    chosen = np.sort(numpy_generator(seed, "transfer", split, "chosen").permutation(len(keys))[:max_examples])
    truth = data.truth.load_column(split, task.truth)
    targets = task.make_targets([truth[i] for i in chosen], seed)
    rgb = np.asarray(data.shards.load_column(split, "rgb"))[chosen]
    return Examples(rgb, targets.prompts, targets.answers, targets.classes, targets.labels)


def class_accuracies(predicted: Mapping[str, np.ndarray], examples: Examples) -> dict[str, float]:
    """Return `<attribute>_accuracy` of each attribute and their mean, `mean_accuracy`: the score of classification tasks.

    Without examples or attributes they are NaN: there was nothing to compare.
    """
    each = {f"{name}_accuracy": value(mean(predicted[name] == column)) for name, column in examples.classes.items()}
    return {**each, "mean_accuracy": float(np.mean(list(each.values()))) if each else math.nan}
