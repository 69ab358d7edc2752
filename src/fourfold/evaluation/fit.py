"""What of a data set does not fit the evaluated model: its labels may be others than those that the model learned.

A model that was trained here has the labels of its data set. A released model has other labels: the classes of COCO, the
features of one network, depth without a unit.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fourfold.evaluation.samples import Samples
from fourfold.evaluation.tasks import PredictionTask
from fourfold.generation.any_to_any import AnyToAny

RELATIVE = "; depth is scaled and shifted to it, image by image, in every column, because the depth of the model has no unit"


def fitting_tasks(model: Any, samples: Samples, tasks: Iterable[PredictionTask]) -> tuple[list[PredictionTask], dict[str, str]]:
    """Return the tasks that a model can answer in the classes of the samples, and why the others are skipped, by name."""
    reasons = {task.name: (task, _misfit(model, samples, task)) for task in tasks}
    return (
        [task for task, reason in reasons.values() if not reason],
        {name: reason for name, (_, reason) in reasons.items() if reason},
    )


def shape_misfit(predicted: Any, samples: Samples, target: str) -> str:
    """Return how the shape of predictions differs from that of the labels or the truth; "" if it is the same."""
    reference = samples.rgb if target == "rgb" else samples.truth.get(target, samples.labels.get(target))
    shapes = [_shape_of_one(values) for values in (predicted, reference)]
    if None in shapes or shapes[0] == shapes[1]:
        return ""
    return f"the model predicts {target!r} of shape {shapes[0]}, and that of the data has {shapes[1]}"


def has_relative_depth(model: Any) -> bool:
    """Return whether the depth of a model has no unit."""
    return isinstance(model, AnyToAny) and model.has_relative_depth


def _misfit(model: Any, samples: Samples, task: PredictionTask) -> str:
    if not isinstance(model, AnyToAny):
        return ""
    if reason := model.lacks(task.source, task.target):
        return reason
    known, table = model.num_classes, samples.class_table
    if task.target == "semseg" and known is not None and table is not None and table.num_classes != known:
        return f"the model predicts {known} classes, and the data has {table.num_classes} ({', '.join(table.names[:3])}, …)"
    return ""


def _shape_of_one(values: np.ndarray | Sequence[Any] | None) -> tuple[int, ...] | None:
    """Return the shape of one sample's array; None for other values and without samples."""
    if values is None or not len(values) or not isinstance(values[0], np.ndarray):
        return None
    return tuple(values[0].shape)
