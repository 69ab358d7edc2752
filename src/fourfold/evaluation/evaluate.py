"""Evaluation of the pretrained model without any fine-tuning.

Every prediction task is compared with a trivial answer, with shuffled inputs and with the teacher. The test split is read here
and nowhere else. Where the source has no exact truth, the labels are the reference, and `reference` in the result states it.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from fourfold.evaluation.comparison import Entry, compare
from fourfold.evaluation.config import EvaluationConfig
from fourfold.evaluation.samples import EvaluationData, Samples, load_samples
from fourfold.evaluation.tasks import (
    PREDICTION_TASKS,
    PredictionTask,
    TaskContext,
    select_tasks,
    task_pairs,
)
from fourfold.generation.config import GenerationConfig
from fourfold.labelers.protocol import ImageTextEncoder

logger = logging.getLogger(__name__)

Predictions = dict[tuple[str, str], Any]  # (source, target) → values of all samples
Table = dict[str, dict[str, Entry]]  # pair → metric → entry


class Predictor(Protocol):
    """The part of the any-to-any model that evaluation needs."""

    def predict(
        self, conditions: dict[str, Any], targets: Sequence[str], *, preset: str | GenerationConfig = "greedy", seed: int = 0
    ) -> dict[str, Any]:
        """Return the decoded targets of a batch of conditions; both by label, in the formats of the codecs."""


def evaluate(
    any_to_any: Predictor, encoder: ImageTextEncoder | None, data: EvaluationData, config: EvaluationConfig, seed: int
) -> dict[str, Any]:
    """Score every prediction task that the data and the encoder allow.

    Args:
        any_to_any: the model; each prediction has its own call, so no prediction is a condition of another.
        encoder: embeds images and texts; None: tasks that need it are skipped.
        data: the shard sets and splits.
        config, seed: of the tables, of generation and of the bootstrap.

    Returns:
        `{"out_of_the_box": {"rgb->depth": {"abs_rel": {"value", "trivial", "shuffled", "teacher", "ci95"}}}, "samples": ...,
        "reference": ...}`.
    """
    names = required_names()
    samples = load_samples(data, data.split, names, config.max_samples)
    fitted = load_samples(data, data.fit_split, names, config.max_samples)
    tasks, skipped = select_tasks(samples, encoder)
    for name, reason in skipped.items():
        logger.info("Evaluation task %s is skipped because %s.", name, reason)
    context = TaskContext(samples, encoder, config)
    table = score_tasks(any_to_any, context, fitted, tasks, seed)
    reference = "exact truth" if samples.exact else "the teachers' labels (this source has no exact truth)"
    return {"out_of_the_box": table, "samples": len(samples), "reference": reference}


def score_tasks(
    any_to_any: Predictor, context: TaskContext, fitted: Samples | None, tasks: Sequence[PredictionTask], seed: int
) -> Table:
    """Predict the targets of some tasks and return the table of their metrics; tasks of one pair share its entry.

    Args:
        any_to_any: the model.
        context: the samples, the text encoder and the settings, an `EvaluationConfig`.
        fitted: samples that the trivial answers are fitted on; None: no trivial answers.
        tasks: the tasks, selected by `select_tasks`.
        seed: of generation, of the bootstrap and of the shuffled control.
    """
    config = context.config
    assert isinstance(config, EvaluationConfig)
    predictions = predict_pairs(any_to_any, context.samples, task_pairs(tasks), config, seed)
    table: Table = {}
    for task in tasks:
        predicted = predictions[task.source, task.target]
        can_fit = fitted is not None and not task.missing(fitted, context.encoder)
        entry = compare(task, context, fitted if can_fit else None, predicted, seed, config.replicates)
        table.setdefault(task.pair, {}).update(entry)
    return table


def predict_pairs(
    any_to_any: Predictor, samples: Samples, pairs: Iterable[tuple[str, str]], config: EvaluationConfig, seed: int
) -> Predictions:
    """Return the model's prediction for each (source, target) pair, by way of other targets where `config.tasks` asks so."""
    inputs = {"rgb": samples.rgb, "caption": samples.captions}
    predictions: Predictions = {}
    for source, target in pairs:
        via, generation = config.generation_of(f"{source}->{target}")
        answers = any_to_any.predict({source: inputs[source]}, [*via, target], preset=generation, seed=seed)
        predictions[source, target] = answers[target]
    return predictions


def required_names() -> set[str]:
    """Return all labels and kinds of truth that registered tasks read."""
    tasks = [task for _, task in PREDICTION_TASKS.items()]
    return {"semseg", *(name for task in tasks for name in (*task.labels, *task.truth, *task.exact_truth))}
