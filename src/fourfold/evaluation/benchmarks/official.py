"""Official benchmarks: original image sizes, the official metric, examples one at a time, predictions in the official format.

An `OfficialBenchmark` is one registered object: a reader of the official layout, its splits, and how answers are scored. Unlike
a `Benchmark`, which holds a small set in memory, it streams: memory depends on one batch.
"""

# H W image of any size

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np

from fourfold.evaluation.benchmarks.views import View
from fourfold.evaluation.config import BenchmarkConfig
from fourfold.generation.config import GenerationConfig
from fourfold.labelers.protocol import ImageTextEncoder
from fourfold.metrics.metric import Metric
from fourfold.metrics.running import Bootstrap, Score
from fourfold.modalities.class_table import ClassTable
from fourfold.progress import progress

NUM_FAILURES = 6  # examples with the largest errors, kept for the gallery


class OfficialModel(Protocol):
    """The part of the any-to-any model that official benchmarks need."""

    def image_side(self, name: str) -> int:
        """Return the pixels per side of the model's input images."""

    def predict(
        self,
        conditions: dict[str, Any],
        targets: Sequence[str],
        *,
        preset: str | GenerationConfig = "greedy",
        seed: int = 0,
        seeds: Sequence[int] | None = None,
    ) -> dict[str, Any]:
        """Return the decoded targets of a batch of conditions; `seeds` are those of its samples, instead of `seed`."""

    def features(self, conditions: Mapping[str, Any]) -> np.ndarray:
        """Return encoder features (B, D), averaged over visible tokens."""


@dataclass(frozen=True)
class Example:
    """One image of a benchmark with what is known about it."""

    key: str  # as in official result files
    rgb: np.ndarray  # uint8 (H, W, 3), the original size
    truth: Any  # what the measure of the benchmark reads; None if the split has no public labels


class StoredExamples(Sequence[Example]):
    """The examples of a split by their numbers, in the official order: an image is read when its example is asked for.

    Attributes:
        truths: what is known about each example without reading its files; empty if the truth is in files, too.
        classes: names of the classes by their official ids, in the order of the class indices, where they are in the file of
            annotations, so that nobody has to read it again; None: they are not.
    """

    def __init__(
        self,
        items: Sequence[Any],
        load: Callable[[Any], Example],
        truths: Sequence[Any] = (),
        classes: Mapping[int, str] | None = None,
    ) -> None:
        """Take what identifies each example, e.g. a path, and a function that reads it."""
        self._items, self._load, self.truths, self.classes = items, load, truths, classes

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Example]:
        return map(self._load, self._items)  # that of Sequence would take an IndexError of `load` for the end

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> "StoredExamples": ...

    def __getitem__(self, index: int | slice) -> "Example | StoredExamples":
        if isinstance(index, slice):
            return StoredExamples(self._items[index], self._load, self.truths[index], self.classes)
        return self._load(self._items[index])

    def subset(self, indices: np.ndarray) -> "StoredExamples":
        """Return some of the examples, in the order of `indices`."""

        def taken(column: Any) -> Sequence[Any]:
            return column[indices] if isinstance(column, np.ndarray) else [column[i] for i in indices]

        truths = taken(self.truths) if len(self.truths) else ()
        return StoredExamples(taken(self._items), self._load, truths, self.classes)

    def digest(self) -> str:
        """Return a SHA-256 of the names of the examples and of what is known about them, in their order; not of their files."""
        found = hashlib.sha256()
        for column in (self._items, self.truths):
            if isinstance(column, np.ndarray):
                found.update(column.tobytes())
            else:
                for value in column:
                    found.update(repr(value).encode())
        return found.hexdigest()


@dataclass(frozen=True)
class Published:
    """A number that others published, for comparison: protocols may differ, so the source is part of it."""

    model: str
    metric: str  # its name in the table
    value: float
    source: str


@dataclass(frozen=True)
class Run:
    """What a measure may read besides the examples."""

    model: OfficialModel
    config: BenchmarkConfig
    bootstrap: Bootstrap
    encoder: ImageTextEncoder | None = None
    class_table: ClassTable | None = None  # what the model's class ids mean; None: unknown
    seed: int = 0
    classes: Mapping[int, str] | None = None  # those of the examples, see `StoredExamples`; None: the measure finds them
    folder: Path | None = None  # for predictions in the official format; None: not written

    @property
    def view(self) -> View:
        """How images of any size become inputs of the model."""
        chosen = self.config
        return View(chosen.view or "squash", self.model.image_side("rgb"), tuple(chosen.scales), chosen.overlap, chosen.flip)


class Measure(ABC):
    """Scores one run of a model over a split, example by example."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @abstractmethod
    def answer(self, examples: Sequence[Example]) -> list[Any]:
        """Return the model's answer to each example, in the geometry of the original image."""

    @abstractmethod
    def add(self, example: Example, answer: Any) -> float | None:
        """Add one example and return its error: the larger, the worse. None: it has nothing to compare."""

    @abstractmethod
    def scores(self) -> dict[str, Score]:
        """Return the metrics."""

    def details(self) -> dict[str, Any]:
        """Return more numbers as JSON values, e.g. by class."""
        return {}

    def left_out(self) -> dict[str, str]:
        """Return why metrics of the benchmark are not in `scores`, by metric."""
        return {}

    def write(self, example: Example, answer: Any, folder: Path) -> None:  # noqa: B027  (optional)
        """Write one answer in the official format of result files."""

    def finish(self, folder: Path) -> None:  # noqa: B027  (optional)
        """Write result files that contain all answers."""

    def draw(self, example: Example, answer: Any) -> list[tuple[str, np.ndarray | str]]:
        """Return what a gallery shows of an example: titles with images uint8 (H, W, 3) or texts."""
        return [("image", example.rgb)]


@dataclass(frozen=True)
class OfficialBenchmark:
    """A public benchmark with its official protocol."""

    name: str  # the reader in `evaluation.benchmarks.<your name>.reader`
    title: str  # in tables
    site: str  # where its owners distribute it
    layout: tuple[str, ...]  # what must exist in its folder: patterns, alternatives separated by |; `{split}` is the split
    # folder, split → examples in the official order; `StoredExamples` if the benchmark has a `train_split`
    read: Callable[[Path, str], Iterable[Example]]
    measure: Callable[[Run], Measure]
    metrics: tuple[Metric, ...]  # the first is the main one
    protocol: str  # how it is scored, in one line
    split: str = "val"
    splits: tuple[str, ...] = ("val",)
    train_split: str | None = None  # what fine-tuning learns from (fourfold.transfer.benchmarks); None: it does not
    view: str = "squash"  # the default of `BenchmarkConfig.view`
    # Settings → examples, instead of `read`, where settings choose them, e.g. `caption_ids`; its `split` and `view` are set
    choose: Callable[[BenchmarkConfig], Iterable[Example]] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)  # number of images of complete splits
    published: tuple[Published, ...] = ()

    def missing(self, folder: Path, split: str) -> list[str]:
        """Return the parts of the layout that a folder does not have."""
        wanted = [pattern.format(split=split).replace("|", " or ") for pattern in self.layout]
        if not folder.is_dir():
            return wanted
        return [each for each in wanted if not any(next(folder.glob(part), None) for part in each.split(" or "))]

    def check(self, folder: Path, split: str) -> None:
        """Raise ValueError if the split is unknown or data are missing, with the site and the expected layout."""
        if split not in self.splits:
            raise ValueError(f"{self.title} has no split {split!r}. Allowed: {', '.join(self.splits)}.")
        if absent := self.missing(folder, split):
            expected = "; ".join(pattern.format(split=split).replace("|", " or ") for pattern in self.layout)
            raise ValueError(
                f"{self.title}: no {absent[0]} in {folder.absolute()}. Get the data from {self.site}, whose terms apply. "
                f"Expected in that folder: {expected}."
            )


def score_official(benchmark: OfficialBenchmark, run: Run) -> dict[str, Any]:
    """Score a model on one split and return a JSON value.

    Args:
        benchmark: what is scored.
        run: the model and the settings.

    Returns:
        `title`, `split`, `protocol`, `samples`, `complete` (whether the split has its published size; None if unknown),
        `without_truth`, `scores` (value and interval by metric), `details`, `metrics`, `published`, `failures` for
        `render_failures`, and, if there are any, `left_out`, the metrics that are not there with the reason.

    Raises:
        ValueError: data are missing or damaged, or the model has no answers of this kind.
    """
    split = run.config.split or benchmark.split
    config = run.config.model_copy(update={"view": run.config.view or benchmark.view, "split": split})
    run = replace(run, config=config)
    benchmark.check(config.path, split)
    found = benchmark.read(config.path, split) if benchmark.choose is None else benchmark.choose(config)
    if isinstance(found, StoredExamples):
        run = replace(run, classes=found.classes)
    measure, failures = benchmark.measure(run), Failures()
    seen = without_truth = 0
    examples = islice(found, config.max_samples)
    for batch in progress(batches(examples, config.batch_size), benchmark.name, unit="batch"):
        for example, answer in zip(batch, measure.answer(batch), strict=True):
            seen += 1
            if run.folder is not None:
                measure.write(example, answer, run.folder)
            error = None if example.truth is None else measure.add(example, answer)
            if error is None:
                without_truth += 1
            elif failures.is_bad(error):
                failures.add(error, example.key, measure.draw(example, answer))
    if not seen:
        raise ValueError(f"{benchmark.title}: split {split!r} in {config.path} has no images. Check the list of the split.")
    if run.folder is not None:
        measure.finish(run.folder)
    return {
        "title": benchmark.title,
        "split": split,
        "protocol": benchmark.protocol,
        "view": config.view,
        "samples": seen,
        "complete": seen == benchmark.sizes[split] if split in benchmark.sizes else None,
        "without_truth": without_truth,
        "scores": {name: as_json(score) for name, score in measure.scores().items() if np.isfinite(score.value)},
        "details": measure.details(),
        "metrics": [vars(metric) for metric in benchmark.metrics],
        "published": [vars(each) for each in benchmark.published],
        "failures": failures.entries(),
        **({"left_out": reasons} if (reasons := measure.left_out()) else {}),
    }


def as_json(score: Score) -> dict[str, Any]:
    """Return a score as a JSON value with six decimals."""
    interval = None if score.interval is None else [round(bound, 6) for bound in score.interval]
    return {"value": round(score.value, 6), "ci95": interval}


def batches(examples: Iterator[Example], size: int) -> Iterator[list[Example]]:
    """Yield lists of up to `size` examples."""
    while batch := list(islice(examples, size)):
        yield batch


class Failures:
    """Keeps the examples with the largest errors."""

    def __init__(self) -> None:
        self._kept: list[tuple[float, str, list[tuple[str, Any]]]] = []

    def is_bad(self, error: float) -> bool:
        """Return whether an example with this error would be kept."""
        return len(self._kept) < NUM_FAILURES or error > self._kept[-1][0]

    def add(self, error: float, key: str, shown: list[tuple[str, Any]]) -> None:
        """Keep an example; the one with the smallest error leaves. Of equal errors, the earlier example stays."""
        self._kept = sorted([*self._kept, (error, key, shown)], key=lambda kept: -kept[0])[:NUM_FAILURES]

    def entries(self) -> list[dict[str, Any]]:
        """Return the kept examples, the worst first; `shown` has images."""
        return [{"key": key, "error": round(error, 6), "shown": shown} for error, key, shown in self._kept]
