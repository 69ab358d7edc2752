"""Quality and size of every way to answer the tasks, on the test samples and with the metrics of the generalist's evaluation.

These numbers are reproducible; `fourfold.specialists.costs` measures times and memory, which are not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np

from fourfold.evaluation.config import EvaluationConfig
from fourfold.evaluation.evaluate import Predictor, reference_of, score_tasks
from fourfold.evaluation.samples import EvaluationData, Samples, load_samples
from fourfold.evaluation.tasks import PREDICTION_TASKS, PredictionTask, TaskContext, select_tasks
from fourfold.generation.any_to_any import AnyToAny
from fourfold.labelers.teachers import TeacherSet
from fourfold.specialists.answering import (
    FINETUNED,
    Way,
    WayPredictor,
    generalist_way,
    specialist_way,
    teachers_way,
    together,
)
from fourfold.specialists.training import SpecialistSet

Table = dict[str, dict[str, Any]]  # pair → metric → {"value", "ci95", ...}


@dataclass(frozen=True)
class Contestants:
    """What is compared: trained specialists, the generalist, and the teachers of both."""

    specialists: SpecialistSet
    any_to_any: AnyToAny
    teachers: TeacherSet

    @property
    def targets(self) -> tuple[str, ...]:
        """The labels that specialists predict, each once."""
        return tuple(dict.fromkeys(one.target for one in self.specialists.config.chosen()))

    def ways(self, image_BHWC: np.ndarray) -> list[Way]:
        """Return every way with its networks, the specialists with those of their first seed; the rows of the table.

        `image_BHWC` is one image, uint8 (1, H, W, 3), on which the teachers are tried.
        """
        single = [specialist_way(one, self.specialists.network(one, 0)) for one in self.specialists.config.chosen()]
        finetuned = [way for way in single if way.kind == FINETUNED]
        others = [way for way in single if way.kind != FINETUNED]
        return [
            *others,
            *combinations(others),
            *finetuned,
            *combinations(finetuned),
            generalist_way(self.any_to_any, self.targets),
            teachers_way(self.teachers, self.targets, image_BHWC),
        ]


def combinations(single: Sequence[Way]) -> list[Way]:
    """Return the specialists of all tasks together, once for every specialist of the task that has the most of them.

    All are of one kind.
    """
    by_target: dict[str, list[Way]] = {}
    for way in single:
        by_target.setdefault(way.targets[0], []).append(way)
    if len(by_target) < 2:
        return []
    contested = max(by_target.values(), key=len)
    found = []
    is_finetuned = contested[0].kind == FINETUNED
    name, title = ("finetuned_together", "4M, fine-tuned: all") if is_finetuned else ("together", "all")
    for choice in contested:
        ways = [choice if ways is contested else ways[0] for ways in by_target.values()]
        if len(contested) > 1:
            found.append(together(ways, f"{name}_{choice.name}", f"{title} {len(ways)} with {choice.title}"))
        else:
            found.append(together(ways, name, f"{title} {len(ways)}{'' if is_finetuned else ' specialists'}"))
    return found


def score_contestants(contestants: Contestants, data: EvaluationData, config: EvaluationConfig, seed: int) -> dict[str, Any]:
    """Score everything on the test split.

    Args:
        contestants: what is compared.
        data: the shard sets and splits, those of the evaluation.
        config: of the evaluation; its samples and bootstrap are the same.
        seed: of the run.

    Returns:
        `order`, the names of the rows; `rows` by name: `title`, `kind`, `targets`, `size`, and `scores` by pair and metric,
        each `{"value", "ci95"}`, for several seeds also `{"std", "values"}`, the value being the mean; `metrics`, what they
        are called; `reference`, what is compared with; `samples`.
    """
    targets, single = contestants.targets, contestants.specialists.config.chosen()
    names = {"semseg", *targets}
    samples = load_samples(data, data.split, names, config.max_samples)
    fitted = load_samples(data, data.fit_split, names, config.max_samples)
    wanted = [task for _, task in PREDICTION_TASKS.items() if task.source == "rgb" and task.target in targets]
    tasks, _ = select_tasks(samples, None, wanted)
    scored = _Scoring(samples, fitted, tasks, config, seed)
    found: dict[str, Table] = {}
    for one in single:
        networks = (contestants.specialists.network(one, index) for index in range(contestants.specialists.config.num_seeds))
        found[one.name] = over_seeds([scored.table(WayPredictor(specialist_way(one, n)), (one.target,)) for n in networks])
    generalist = scored.table(contestants.any_to_any, targets)
    found["generalist"] = _columns(generalist, "value")
    found["teachers"] = _columns(generalist, "teacher")
    rows = {}
    for way in contestants.ways(samples.rgb[:1]):
        scores = found[way.name] if way.name in found else _merged(found[name] for name in way.parts)
        about = {"title": way.title, "kind": way.kind, "targets": list(way.targets), "trained_with": list(way.trained_with)}
        rows[way.name] = {**about, "size": way.size(), "scores": scores}
    trivial = {"title": "trivial answer", "kind": "baseline", "targets": list(targets), "size": {}}
    rows["trivial"] = trivial | {"scores": _columns(generalist, "trivial")}
    titles = {labeler.modality: labeler.title for labeler in contestants.teachers.labelers()}
    return {
        "rows": rows,
        "order": list(rows),  # JSON files have sorted keys
        "metrics": {task.pair: [vars(metric) for metric in task.metrics] for task in tasks},
        "reference": "exact truth" if samples.exact else "the teachers' labels: agreement, not correctness",
        "references": {} if samples.exact else {task.pair: reference_of(task, titles) for task in tasks},
        "samples": len(samples),
        "model": contestants.any_to_any.digest(),
        "specialists": contestants.specialists.digest(),
    }


@dataclass(frozen=True)
class _Scoring:
    """The samples and tasks that everything is scored on."""

    samples: Samples
    fitted: Samples
    tasks: list[PredictionTask]
    config: EvaluationConfig
    seed: int

    def table(self, predictor: Predictor, targets: Sequence[str]) -> Table:
        """Return the entries of the tasks of some targets, as the evaluation makes them."""
        tasks = [task for task in self.tasks if task.target in targets]
        return score_tasks(predictor, TaskContext(self.samples, None, self.config), self.fitted, tasks, self.seed)


def over_seeds(tables: Sequence[Table]) -> Table:
    """Return mean and sample standard deviation of several trainings; the interval over samples is that of the first."""
    merged: Table = {}
    for pair, entries in tables[0].items():
        for metric, entry in entries.items():
            values = [table[pair][metric]["value"] for table in tables if metric in table.get(pair, {})]
            result = {"value": round(fmean(values), 6), "ci95": entry["ci95"]}
            if len(values) > 1:
                result |= {"std": round(stdev(values), 6), "values": values}
            merged.setdefault(pair, {})[metric] = result
    return merged


def _columns(table: Table, column: str) -> Table:
    """Return one column of the evaluation's entries, with the interval where it is about that column."""
    found: Table = {}
    for pair, entries in table.items():
        for metric, entry in entries.items():
            value = entry[column]
            if value is not None and math.isfinite(value):
                found.setdefault(pair, {})[metric] = {"value": value, "ci95": entry["ci95"] if column == "value" else None}
    return found


def _merged(tables: Any) -> Table:
    return {pair: entries for table in tables for pair, entries in table.items()}
