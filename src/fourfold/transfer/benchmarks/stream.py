"""What is learned and what is scored of a benchmark, and a trained learner as the model of its measure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from fourfold.evaluation.benchmarks import OfficialBenchmark
from fourfold.evaluation.benchmarks.dense_measures import DepthMeasure, SegmentationMeasure
from fourfold.evaluation.benchmarks.object_measures import GAP, DetectionMeasure, QuestionMeasure
from fourfold.evaluation.benchmarks.official import Measure, Run, StoredExamples, score_official
from fourfold.evaluation.benchmarks.suite import PREDICTIONS, REPORT_FILE, without_images
from fourfold.evaluation.benchmarks.views import View
from fourfold.evaluation.config import BenchmarkConfig
from fourfold.evaluation.report.benchmarks import benchmark_page
from fourfold.metrics.running import Bootstrap
from fourfold.seeds import numpy_generator
from fourfold.storage import write_bytes
from fourfold.transfer.benchmark_settings import TrainedBenchmarkConfig
from fourfold.transfer.benchmarks.parts import BoxLabels, ClassMaps, DepthMaps, Labels, WholeImage
from fourfold.transfer.benchmarks.streaming import StreamedExamples
from fourfold.transfer.examples import Examples
from fourfold.transfer.heads.detection import BoxHead
from fourfold.transfer.tasks import Scoring, TransferTask

CLASS = "class"  # the attribute of classification tasks
SCORING = {"path", "split", "max_samples", "batch_size", "view", "overlap", "flip"}  # settings that scoring has, too


def checked(benchmark: OfficialBenchmark, settings: TrainedBenchmarkConfig) -> BenchmarkConfig:
    """Return how a benchmark is scored, after a look at its folder.

    Raises:
        ValueError: data are missing, the split that is scored is unknown or the one that is learned, maps or boxes have
            `rand_augment`, questions have `color_jitter` with other hues, boxes have the view `crop`, or torchvision is
            missing, which finds boxes.
    """
    assert benchmark.train_split is not None
    values = settings.model_dump(include=SCORING, exclude_none=True)
    config = BenchmarkConfig(reader=benchmark.name, **({"split": benchmark.split, "view": benchmark.view} | values))
    if config.split == benchmark.train_split:
        others = ", ".join(split for split in benchmark.splits if split != benchmark.train_split)
        raise ValueError(f"{benchmark.title}: split {config.split!r} is learned, so it cannot be scored. Allowed: {others}.")
    for split in (benchmark.train_split, config.split):
        benchmark.check(settings.path, str(split))
    measure = measure_of(benchmark, config, {})  # of its kind; names of classes may be in large files
    if isinstance(measure, DetectionMeasure):
        BoxHead(tuple(measure.names)).require()
        if config.view == "crop":
            raise ValueError(
                f"{benchmark.title}: view is 'crop', and the official boxes are those of whole images. Allowed: squash. Change "
                f"finetuning.benchmarks.{benchmark.name}.view."
            )
    if settings.rand_augment is not None and (left := labels_of(measure).moved_by_rand_augment):
        raise ValueError(
            f"{benchmark.title}: rand_augment moves an image and not its {left}. Remove finetuning.benchmarks.{benchmark.name}."
            "rand_augment; scale_jitter, random_crop and mirror keep both together."
        )
    jitter = settings.color_jitter
    if isinstance(measure, QuestionMeasure) and jitter is not None and (jitter.hue or jitter.gray):
        raise ValueError(
            f"{benchmark.title}: color_jitter has hue {jitter.hue:g} and gray {jitter.gray:g}, and questions ask about colors, "
            "whose answers would be wrong. Allowed: hue 0 and gray 0. Change "
            f"finetuning.benchmarks.{benchmark.name}.color_jitter."
        )
    return config


def measure_of(benchmark: OfficialBenchmark, config: BenchmarkConfig, classes: Mapping[int, str] | None) -> Measure:
    """Return the measure of a benchmark without a model: its kind, and the names of classes.

    Args:
        benchmark: that is learned.
        config: how it is scored.
        classes: those of the examples, see `StoredExamples`.
    """
    return benchmark.measure(Run(cast(Any, None), config, Bootstrap(replicates=0), classes=classes))


def labels_of(measure: Measure) -> Labels:
    """Return what becomes of the truth that a measure reads when a part of an image is learned."""
    if isinstance(measure, SegmentationMeasure):
        return ClassMaps()
    if isinstance(measure, DepthMeasure):
        return DepthMaps(measure.protocol.min_depth, measure.protocol.max_depth)
    if isinstance(measure, DetectionMeasure):
        return BoxLabels(measure.names)
    return WholeImage()


class BenchmarkStream:
    """The splits of a benchmark that are learned and scored; see `fourfold.transfer.tasks.Stream`.

    The annotations of each split are read once; what is kept of them is in the examples.
    """

    def __init__(self, benchmark: OfficialBenchmark, settings: TrainedBenchmarkConfig) -> None:
        """Open the training split.

        Raises:
            ValueError: as `opened`.
        """
        self.benchmark, self.settings, self.held_out = benchmark, settings, settings.held_out
        self.config = checked(benchmark, settings)
        assert benchmark.train_split is not None
        self.train = self._examples(benchmark.train_split)
        self.measure = measure_of(benchmark, self.config, self.train.classes)
        if len(self.train) < self.held_out + 2:
            raise ValueError(
                f"{benchmark.title}: {self.held_out} examples are held out of the {len(self.train)} of "
                f"{benchmark.train_split!r}; at least 2 must be left. Lower finetuning.benchmarks.{benchmark.name}.held_out."
            )

    @cached_property
    def scored(self) -> StoredExamples:
        """The official split; of it, `max_samples` examples are scored.

        Raises:
            ValueError: its classes are not those that are learned.
        """
        found = self._examples(str(self.config.split))
        if found.classes is not None and self.train.classes != found.classes:
            raise ValueError(
                f"{self.benchmark.title}: {self.benchmark.train_split!r} has {len(self.train.classes or ())} classes and "
                f"{self.config.split!r} {len(found.classes)}; their ids and names must be equal. Use the official annotations."
            )
        return found

    def _examples(self, split: str) -> StoredExamples:
        found = self.benchmark.read(self.config.path, split)
        if not isinstance(found, StoredExamples):
            raise ValueError(
                f"The reader of {self.benchmark.name} returns {type(found).__name__}; one with a train_split must return "
                "StoredExamples, so that the examples can be shuffled. Change the reader."
            )
        return found

    def digest(self) -> str:
        """Return a digest of the names and annotations of both splits."""
        return hashlib.sha256(f"{self.train.digest()} {self.scored.digest()}".encode()).hexdigest()

    def pool(self, task: TransferTask, side: int, seed: int) -> StreamedExamples:
        """Return the examples that may be learned; see `fourfold.transfer.tasks.Stream`."""
        view = View(self.config.view or "squash", side, overlap=self.config.overlap)
        examples = self.train.subset(np.sort(self._order(seed)[self.held_out :]))
        return StreamedExamples(examples, task, view, self.settings, labels_of(self.measure))

    def _order(self, seed: int) -> np.ndarray:
        """Return a random order of the training split, int64 (N,); those that are held out come first."""
        return numpy_generator(seed, "transfer", self.benchmark.name, "held out").permutation(len(self.train))

    def score(self, task: TransferTask, learner: Any, split: str, draw: Scoring) -> dict[str, Any]:
        """Return the official result; of the official split with a report and its predictions in `draw.folder`."""
        is_selection = split == "transfer_val"
        folder = draw.folder / draw.name
        config = self.config
        examples = self.scored
        if is_selection:
            config = config.model_copy(update={"split": self.benchmark.train_split, "max_samples": None})
            examples = self.train.subset(np.sort(self._order(draw.seed)[: self.held_out]))
        run = Run(
            model=FineTuned(learner, task, draw.side),
            config=config,
            bootstrap=Bootstrap(draw.seed, self.benchmark.name),
            seed=draw.seed,
            folder=None if is_selection else folder / PREDICTIONS,
        )
        result = score_official(replace(self.benchmark, read=lambda path, name: examples), run) | {"model": draw.name}
        if not is_selection:
            write_bytes(folder / REPORT_FILE, benchmark_page({self.benchmark.name: result}).encode())
        return without_images(result)


class FineTuned:
    """A trained learner as the model of a benchmark: it answers what its task asks."""

    def __init__(self, learner: Any, task: TransferTask, side: int) -> None:
        self._learner, self._task, self._side = learner, task, side

    def image_side(self, name: str) -> int:
        """Return the pixels per side of the learner's images."""
        return self._side

    def predict(
        self,
        conditions: dict[str, Any],
        targets: Sequence[str],
        *,
        preset: Any = "greedy",
        seed: int = 0,
        seeds: Sequence[int] | None = None,
    ) -> dict[str, Any]:
        """Return logits (B, K), answers, or what a head predicts of each image as the one target; nothing is drawn."""
        (target,) = targets
        questions = [text.removesuffix(f" {GAP}") for text in conditions.get("caption", ())]
        examples = Examples(conditions["rgb"], questions, [], {})
        if self._task.kind == "classes":
            return {target: self._learner.logits(examples.rgb)[CLASS].float().cpu().numpy()}
        return {target: self._learner.predict(examples)}

    def features(self, conditions: Mapping[str, Any]) -> np.ndarray:
        """Raise ValueError: learned tasks need no features."""
        raise ValueError(
            "A fine-tuned model has no features. Use the pretrained model for nearest neighbors and linear probes."
        )
