"""One figure of the table: the student's value beside the trivial, the shuffled-input and the teacher's, with its interval."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fourfold.metrics.statistics import Statistic, confidence_interval, value
from fourfold.seeds import numpy_generator

Score = Callable[[Any], dict[str, Statistic]]  # predictions of all samples → its metrics
Figure = dict[str, Any]  # value, trivial, shuffled, teacher: float | None; ci95: [low, high] | None


def derangement(count: int, seed: int) -> np.ndarray:
    """Return a random cyclic permutation (Sattolo 1986), so that no sample keeps its own input."""
    order = np.arange(count)
    rng = numpy_generator(seed, "evaluation", "shuffled")
    for last in range(count - 1, 0, -1):
        other = int(rng.integers(last))
        order[[last, other]] = order[[other, last]]
    return order


def permuted(predictions: Any, order: np.ndarray) -> Any:
    """Return predictions of all samples in another order; an array or a list."""
    return predictions[order] if isinstance(predictions, np.ndarray) else [predictions[i] for i in order]


def compare(
    name: str,
    score: Score,
    student: Any,
    trivial: Any,
    teacher: Any | None,
    seed: int,
    replicates: int,
) -> dict[str, Figure]:
    """Return every metric of `score` for one arrow, e.g. `rgb->depth`.

    Args:
        name: the arrow; the bootstrap's random numbers depend on it.
        score: predictions → statistics.
        student, teacher: predictions for all samples; `teacher` None where nobody labels this target.
        trivial: predictions that do not depend on the input.
        seed, replicates: of the bootstrap and of the shuffled control.

    The shuffled control scores what the student says of *another* sample's input: predicting from shuffled inputs and
    shuffling predictions are the same, since each sample is predicted by itself.
    """
    order = derangement(len(student), seed)
    given = {"value": score(student), "trivial": score(trivial), "shuffled": score(permuted(student, order))}
    if teacher is not None:
        given["teacher"] = score(teacher)
    return figures(name, given, seed, replicates)


def figures(name: str, given: dict[str, dict[str, Statistic]], seed: int, replicates: int) -> dict[str, Figure]:
    """Return figures of the metrics in `given["value"]`; None for what the other columns do not have."""
    result: dict[str, Figure] = {}
    for metric, statistic in given["value"].items():
        columns = {c: given.get(c, {}).get(metric) for c in ("value", "trivial", "shuffled", "teacher")}
        figure: Figure = {column: None if s is None else finite(value(s)) for column, s in columns.items()}
        interval = confidence_interval(statistic, seed, f"{name}/{metric}", replicates)
        result[metric] = {**figure, "ci95": None if interval is None else [round(bound, 6) for bound in interval]}
    return result


def finite(number: float) -> float | None:
    """Return a figure for JSON: six decimals, None when it is undefined."""
    return round(number, 6) if np.isfinite(number) else None
