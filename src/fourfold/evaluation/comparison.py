"""One entry of the table: the model's value with its interval, beside the trivial, the shuffled-input and the teacher's."""

from typing import Any

import numpy as np

from fourfold.evaluation.samples import Samples
from fourfold.evaluation.tasks.protocol import PredictionTask, TaskContext
from fourfold.metrics.statistics import Statistic, confidence_interval, value
from fourfold.seeds import numpy_generator

COLUMNS = ("value", "trivial", "shuffled", "teacher")
Entry = dict[str, Any]  # value, trivial, shuffled, teacher: float | None; ci95: [low, high] | None


def score_columns(
    task: PredictionTask, context: TaskContext, fitted: Samples | None, predicted: Any, seed: int
) -> dict[str, dict[str, Statistic]]:
    """Return the statistics of one task by metric, for each of COLUMNS that exists.

    The shuffled control scores the model's answers to *other* samples' inputs. Predicting from shuffled inputs and shuffling
    predictions are the same, since each sample is predicted by itself.

    Args:
        task: the task.
        context: the samples that are scored, and the text encoder.
        fitted: validation samples that the trivial answer is fitted on; None: no trivial answer.
        predicted: the model's predictions for all samples.
        seed: of the shuffled control.
    """
    count = len(context.samples)
    answers = task.interpret(predicted, context)
    columns = {
        "value": task.score(answers, context),
        "shuffled": task.score(permuted(answers, derangement(count, seed)), context),
    }
    if fitted is not None:
        columns["trivial"] = task.score(_repeated(task.trivial(fitted), count), context)
    teacher = task.teacher(context) if task.teacher is not None else None
    if teacher is not None and not _is_reference(teacher, task, context.samples):
        scores = task.score(task.interpret(teacher, context), context)
        columns["teacher"] = {name: score for name, score in scores.items() if name not in task.against_teacher}
    return columns


def entries(name: str, columns: dict[str, dict[str, Statistic]], seed: int, replicates: int) -> dict[str, Entry]:
    """Return an entry for each metric in `columns["value"]`; None for what the other columns do not have.

    A metric whose value is undefined, because there was nothing to compare, has no entry.

    Args:
        name: of the task; with the metric's it determines the replicates of the bootstrap.
        columns: for each of COLUMNS that exists, statistics by metric.
        seed, replicates: of the bootstrap.
    """
    result: dict[str, Entry] = {}
    for metric, statistic in columns["value"].items():
        found = {column: columns.get(column, {}).get(metric) for column in COLUMNS}
        entry: Entry = {column: None if s is None else finite(value(s)) for column, s in found.items()}
        if entry["value"] is None:
            continue
        interval = confidence_interval(statistic, seed, f"{name}/{metric}", replicates)
        result[metric] = {**entry, "ci95": None if interval is None else [round(bound, 6) for bound in interval]}
    return result


def derangement(count: int, seed: int) -> np.ndarray:
    """Return a random cyclic permutation int64 (count,), which moves every element (Sattolo 1986)."""
    order = np.arange(count)
    rng = numpy_generator(seed, "evaluation", "shuffled")
    for last in range(count - 1, 0, -1):
        other = int(rng.integers(last))
        order[[last, other]] = order[[other, last]]
    return order


def permuted(answers: Any, order: np.ndarray) -> Any:
    """Return the answers of all samples, an array or a list, in another order."""
    return answers[order] if isinstance(answers, np.ndarray) else [answers[i] for i in order]


def finite(number: float) -> float | None:
    """Return a number for JSON: six decimals, None when it is undefined."""
    return round(number, 6) if np.isfinite(number) else None


def _is_reference(teacher: Any, task: PredictionTask, samples: Samples) -> bool:
    """Return whether the teacher's labels stand in for the truth: compared with themselves they would look perfect."""
    return any(teacher is samples.truth.get(name) for name in task.truth)


def _repeated(answer: Any, count: int) -> Any:
    return np.repeat(answer[None], count, axis=0) if isinstance(answer, np.ndarray) else [answer] * count
