"""Official benchmarks with a training split as transfer tasks."""

from dataclasses import replace
from typing import Any

import numpy as np

from fourfold.evaluation.benchmarks import BENCHMARKS, OfficialBenchmark
from fourfold.evaluation.benchmarks.dense_measures import DepthMeasure, SegmentationMeasure
from fourfold.evaluation.benchmarks.object_measures import ClassMeasure, DetectionMeasure, QuestionMeasure
from fourfold.evaluation.benchmarks.sets.imagenet import IMAGENET
from fourfold.transfer.benchmark_settings import BENCHMARK, TrainedBenchmarkConfig
from fourfold.transfer.benchmarks.answers import AnswerVocabulary
from fourfold.transfer.benchmarks.stream import CLASS, BenchmarkStream, checked
from fourfold.transfer.examples import Targets
from fourfold.transfer.heads.dense import DepthHead, SegmentationHead
from fourfold.transfer.heads.detection import BoxHead
from fourfold.transfer.tasks import TRANSFER_TASKS, TransferTask

MIN_QUESTIONS = 9  # of VQAv2 (Teney et al. 2017, arXiv 1708.02711: more than 8)


def register() -> None:
    """Add a transfer task for each official benchmark that names its training split; `fourfold.plugins` calls this."""
    for name in trainable():
        TRANSFER_TASKS.register(name, benchmark_task(name))


def trainable() -> dict[str, OfficialBenchmark]:
    """Return the benchmarks that can be learned, by name."""
    found = [each for _, each in BENCHMARKS.items() if isinstance(each, OfficialBenchmark) and each.train_split]
    return {benchmark.name: benchmark for benchmark in (IMAGENET, *found)}


def benchmark_task(name: str) -> TransferTask:
    """Return the transfer task of a benchmark; its data are opened when it is resolved."""
    benchmark = trainable()[name]
    return TransferTask(
        name=name,
        title=f"{benchmark.title}, fine-tuned",
        metrics=benchmark.metrics,
        make_targets=lambda values, seed: Targets(),  # `resolve` replaces it
        score=lambda predicted, examples: {},  # the stream scores
        truth=BENCHMARK,
        check=lambda settings: checked(benchmark, settings),
        resolve=lambda task, data: opened(task, benchmark, data.benchmarks[task.name]),
    )


def opened(task: TransferTask, benchmark: OfficialBenchmark, settings: TrainedBenchmarkConfig) -> TransferTask:
    """Return a task with the examples of its benchmark and what follows from them: classes, answers, or a head.

    Raises:
        ValueError: data are missing, too few examples are left to learn, or the scored split is the one that is learned.
    """
    stream = BenchmarkStream(benchmark, settings)
    measure = stream.measure
    task = replace(task, stream=stream, resolve=None)
    if isinstance(measure, SegmentationMeasure):
        head = SegmentationHead(measure.table.num_classes)
        return replace(task, head=head, make_targets=_labels)
    if isinstance(measure, DepthMeasure):
        limits = measure.protocol
        return replace(task, head=DepthHead(limits.min_depth, limits.max_depth, settings.depth_scale), make_targets=_labels)
    if isinstance(measure, DetectionMeasure):
        return replace(task, head=BoxHead(tuple(measure.names)), make_targets=_labels)
    if isinstance(measure, ClassMeasure):
        return replace(task, choices={CLASS: tuple(measure.names)}, make_targets=_classes)
    if isinstance(measure, QuestionMeasure):
        min_questions = settings.min_questions or (1 if measure.exact else MIN_QUESTIONS)
        known = AnswerVocabulary(stream.train.truths, min_questions, is_exact=measure.exact)
        return replace(task, answers=known.answers, make_targets=known.make_targets)
    raise ValueError(
        f"{benchmark.title} has a train_split and {type(measure).__name__}, which cannot be learned. Allowed: ClassMeasure, "
        "DepthMeasure, DetectionMeasure, QuestionMeasure, SegmentationMeasure. Remove train_split, or add a task in a plug-in."
    )


def _labels(values: list[Any], seed: int) -> Targets:
    return Targets(labels=list(values))


def _classes(values: list[Any], seed: int) -> Targets:
    return Targets(classes={CLASS: np.array(values, np.int64)})
