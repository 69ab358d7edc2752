"""Prediction tasks: what is predicted from what, and how it is scored. Import `PREDICTION_TASKS` from here.

The tasks of this package are registered below; plug-ins register theirs in their `register()`
(docs/guides/add-an-evaluation-task.md).
"""

from fourfold.evaluation.tasks.computed import COMPUTED_TASKS
from fourfold.evaluation.tasks.dense import DENSE_TASKS
from fourfold.evaluation.tasks.features import FEATURE_TASKS
from fourfold.evaluation.tasks.protocol import (
    PREDICTION_TASKS,
    PredictionTask,
    ScoringConfig,
    TaskContext,
    pair_metrics,
    select_tasks,
    task_pairs,
)
from fourfold.evaluation.tasks.text import TEXT_TASKS

for _task in (*DENSE_TASKS, *TEXT_TASKS, *FEATURE_TASKS, *COMPUTED_TASKS):
    PREDICTION_TASKS.register(_task.name, _task)

__all__ = [
    "PREDICTION_TASKS",
    "PredictionTask",
    "ScoringConfig",
    "TaskContext",
    "pair_metrics",
    "select_tasks",
    "task_pairs",
]
