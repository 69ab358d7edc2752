"""The benchmark: one registered object with a reader of the official layout, its splits and its prediction tasks.

A reader returns `Samples`, so a benchmark is scored by the same prediction tasks, with the same intervals and controls, as the
data set of the run. It may reuse registered tasks (`PREDICTION_TASKS.get("rgb->depth")`) or bring its own.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from fourfold.evaluation.benchmarks.official import OfficialBenchmark
from fourfold.evaluation.config import BenchmarkConfig, EvaluationConfig
from fourfold.evaluation.evaluate import Predictor, score_tasks
from fourfold.evaluation.samples import Samples
from fourfold.evaluation.tasks import PredictionTask, TaskContext, select_tasks
from fourfold.labelers.protocol import ImageTextEncoder
from fourfold.plugins import Registry

logger = logging.getLogger(__name__)


class BenchmarkModel(Predictor, Protocol):
    """The part of the any-to-any model that benchmarks need."""

    def image_side(self, name: str) -> int:
        """Return the pixels per side of the model's input images."""


@dataclass(frozen=True)
class BenchmarkSplit:
    """Which samples a reader is asked for."""

    folder: Path  # where the user keeps the benchmark, in its official layout
    name: str  # of the split
    side: int  # pixels per side of the images that the model takes
    max_samples: int


@dataclass(frozen=True)
class Benchmark:
    """A public benchmark."""

    name: str  # the reader in `evaluation.benchmarks.<your name>.reader`
    title: str  # in the report
    read: Callable[[BenchmarkSplit], Samples]  # raises ValueError when the folder has another layout
    tasks: tuple[PredictionTask, ...]
    split: str = "val"  # is scored by default
    fit_split: str | None = "train"  # the trivial answers are fitted on it if it is there; None: no trivial answers


BENCHMARKS: Registry[Benchmark | OfficialBenchmark] = Registry(
    "benchmark", "Register it in a plug-in; see docs/guides/add-a-benchmark.md."
)
MAX_IN_MEMORY = 1000  # samples of a benchmark that is held in memory, unless `max_samples` is set


def evaluate_benchmarks(
    any_to_any: BenchmarkModel, encoder: ImageTextEncoder | None, config: EvaluationConfig, seed: int
) -> dict[str, Any]:
    """Score the model on each configured benchmark.

    Args:
        any_to_any: the model.
        encoder: embeds images and texts; None: tasks that need it are skipped.
        config: names the benchmarks and their folders.
        seed: of generation and of the bootstrap.

    Returns:
        By the names of the configuration, without official benchmarks, which have a run of their own: `title`, `samples`,
        `skipped` tasks with the reason, a `table` as that of `evaluate`, and the `metrics` that describe its entries.
    """
    results = {}
    for name, settings in config.benchmarks.items():
        if isinstance(BENCHMARKS.get(settings.reader), OfficialBenchmark):
            logger.warning("Benchmark %s is left out here: `kedro run --pipelines=benchmarks` scores it.", name)
        else:
            results[name] = _evaluate_benchmark(any_to_any, encoder, settings, config, seed)
    return results


def _evaluate_benchmark(
    any_to_any: BenchmarkModel,
    encoder: ImageTextEncoder | None,
    settings: BenchmarkConfig,
    config: EvaluationConfig,
    seed: int,
) -> dict[str, Any]:
    benchmark = BENCHMARKS.get(settings.reader)
    assert isinstance(benchmark, Benchmark)
    side = any_to_any.image_side("rgb")

    def read(split: str) -> Samples:
        return benchmark.read(BenchmarkSplit(settings.path, split, side, settings.max_samples or MAX_IN_MEMORY))

    samples = read(settings.split or benchmark.split)
    has_fit_split = benchmark.fit_split is not None and (settings.path / benchmark.fit_split).is_dir()
    fitted = read(benchmark.fit_split) if has_fit_split and benchmark.fit_split else None
    tasks, skipped = select_tasks(samples, encoder, benchmark.tasks)
    misfits: dict[str, str] = {}
    table = score_tasks(any_to_any, TaskContext(samples, encoder, config), fitted, tasks, seed, misfits=misfits)
    return {
        "title": benchmark.title,
        "samples": len(samples),
        "skipped": skipped | misfits,
        "table": table,
        "metrics": [vars(metric) for task in tasks for metric in task.metrics],
    }


def read_image(path: Path, side: int) -> np.ndarray:
    """Return an image file as uint8 (side, side, 3): the shorter side is resized, then the center is cropped.

    Raises:
        ValueError: the file is no image.
    """
    try:
        image = Image.open(path).convert("RGB")
    except OSError as error:
        raise ValueError(f"{path} cannot be read as an image: {error}. Replace or remove it.") from error
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + side, top + side)))
