"""Node of the benchmarks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fourfold.data.shards import ShardSet
from fourfold.evaluation.benchmarks.suite import BenchmarkSubject, known_class_table, run_suite
from fourfold.evaluation.config import EvaluationConfig
from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.released import is_released
from fourfold.labelers.teachers import TeacherSet


def score_benchmarks(
    model_finder: Callable[[str | None], Path],
    known_teachers: TeacherSet | None,
    known_labels: ShardSet | None,
    evaluation: EvaluationConfig,
    seed: int,
    benchmarks_folder: Path,
) -> tuple[dict[str, Any], str]:
    """Score a model on every configured benchmark.

    Returns:
        The results, and a report as HTML. The folder gets both for each benchmark and model, with the predictions in the
        official formats.
    """
    found = model_finder(evaluation.model)
    is_own = evaluation.model is None or evaluation.model.startswith("models:/")
    name = evaluation.text_encoder
    encoder = known_teachers.image_text_encoder(name) if known_teachers is not None and name else None
    subject = BenchmarkSubject(
        model=AnyToAny.from_released(found) if is_released(found) else AnyToAny.load(found),
        name=evaluation.model or str(found),
        encoder=encoder,
        # the labels of this project may have other classes than a model from elsewhere
        class_table=known_class_table(known_labels) if known_labels is not None and is_own else None,
    )
    return run_suite(subject, evaluation, seed, benchmarks_folder)
