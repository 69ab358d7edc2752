"""Runs of the comparison and their results as tables."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fourfold.transfer.tasks import TRANSFER_TASKS, Examples

NUM_SHOWN = 8  # test examples kept with their answers, for the report


@dataclass(frozen=True)
class Run:
    """One training: a task, an arm, a number of labels, a seed, a multiplier of the learning rates."""

    task: str
    arm: str
    num_labels: int
    seed: int
    lr_multiplier: float

    @property
    def name(self) -> str:
        """The run's name, also that of its result file."""
        return f"{self.task}-{self.arm}-{self.num_labels}-seed{self.seed}-lr{self.lr_multiplier:g}"


def tabulate(results: dict[Run, dict[str, Any]]) -> dict[str, dict[str, dict[str, dict[str, float | int]]]]:
    """Return `{"<task>_<labels>": {metric: {arm: {"mean", "std", "n"}}}}` over seeds."""
    gathered: dict[str, dict[str, dict[str, list[float]]]] = {}
    for run, result in results.items():
        for metric, value in result["metrics"].items():
            of_task = gathered.setdefault(f"{run.task}_{run.num_labels}", {})
            of_task.setdefault(metric, {}).setdefault(run.arm, []).append(value)
    return {t: {m: {a: _summary(v) for a, v in arms.items()} for m, arms in ms.items()} for t, ms in gathered.items()}


def example_answers(results: dict[Run, dict[str, Any]]) -> list[dict[str, str]]:
    """Return some test examples with the answers of each arm, from the runs with the most labels and the first seed."""
    max_labels: dict[str, int] = {}
    for run in results:
        max_labels[run.task] = max(max_labels.get(run.task, 0), run.num_labels)
    rows: dict[tuple[str, int], dict[str, str]] = {}
    for run, result in results.items():
        if run.num_labels == max_labels[run.task] and run.seed == 0:
            for index, example in enumerate(result["examples"]):
                question = {key: value for key, value in example.items() if key != "predicted"}
                row = rows.setdefault((run.task, index), {"task": run.task, **question})
                row[run.arm] = example["predicted"]
    return list(rows.values())


def describe_tasks(names: Iterable[str]) -> dict[str, Any]:
    """Return title and metrics of some tasks as JSON, by name; the main metric is the first."""
    tasks = [TRANSFER_TASKS.get(name) for name in names]
    return {task.name: {"title": task.title, "metrics": [vars(metric) for metric in task.metrics]} for task in tasks}


def _summary(values: list[float]) -> dict[str, float | int]:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": round(float(np.mean(values)), 6), "std": round(deviation, 6), "n": len(values)}


def first_answers(examples: Examples, predicted: list[str]) -> list[dict[str, Any]]:
    """Return some questions with the right answer and the predicted one."""
    columns = zip(range(NUM_SHOWN), examples.prompts, examples.answers, predicted, strict=False)
    return [{"index": i, "prompt": prompt, "answer": answer, "predicted": ours} for i, prompt, answer, ours in columns]
