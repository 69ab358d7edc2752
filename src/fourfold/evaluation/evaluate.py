"""Evaluation of the pretrained model without any fine-tuning.

Every prediction task is compared with a trivial answer, with shuffled inputs and with the teacher. The test split is read here
and nowhere else. Where the source has no exact truth, the labels are the reference, and `reference` in the result states it.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from operator import itemgetter
from typing import Any, Protocol

from fourfold.evaluation.comparison import Entry, entries, score_columns
from fourfold.evaluation.config import EvaluationConfig
from fourfold.evaluation.fit import RELATIVE, fitting_tasks, has_relative_depth, shape_misfit
from fourfold.evaluation.paired import PairedScores
from fourfold.evaluation.samples import EvaluationData, Samples, load_samples
from fourfold.evaluation.tasks import (
    PREDICTION_TASKS,
    PredictionTask,
    TaskContext,
    select_tasks,
    task_pairs,
)
from fourfold.evaluation.worst import WorstCases
from fourfold.generation.config import GenerationConfig
from fourfold.labelers.protocol import ImageTextEncoder
from fourfold.local_workers import results_of
from fourfold.modalities import SOURCE_LABELS
from fourfold.progress import progress

logger = logging.getLogger(__name__)

LABELS_OF_4M_7 = ("rgb", "depth", "normal", "semseg", "clip", "caption", "det")

Predictions = dict[tuple[str, str], Any]  # (source, target) → values of all samples
Table = dict[str, dict[str, Entry]]  # pair → metric → entry
Scored = tuple[int, dict[str, Entry], dict[str, Any], dict[str, Any]]  # index of the task, entries, replicates, worst cases


class Predictor(Protocol):
    """The part of the any-to-any model that evaluation needs."""

    def predict(
        self, conditions: dict[str, Any], targets: Sequence[str], *, preset: str | GenerationConfig = "greedy", seed: int = 0
    ) -> dict[str, Any]:
        """Return the decoded targets of a batch of conditions; both by label, in the formats of the codecs."""


def evaluate(
    any_to_any: Predictor,
    encoder: ImageTextEncoder | None,
    data: EvaluationData,
    config: EvaluationConfig,
    seed: int,
    *,
    paired: PairedScores | None = None,
    labelers: Mapping[str, str] | None = None,
    worst: WorstCases | None = None,
) -> dict[str, Any]:
    """Score every prediction task that the data and the encoder allow.

    Samples without a caption do not count in tasks from or to captions.

    Args:
        any_to_any: the model; each prediction has its own call, so no prediction is a condition of another.
        encoder: embeds images and texts; None: tasks that need it are skipped.
        data: the shard sets and splits.
        config, seed: of the tables, of generation and of the bootstrap.
        paired: collects replicates for comparisons with other models.
        labelers: what made the labels, for people, by modality.
        worst: collects the samples that are predicted worst.

    Returns:
        `{"out_of_the_box": {"rgb->depth": {"abs_rel": {"value", "trivial", "shuffled", "teacher", "ci95"}}}, "samples": ...,
        "reference": ...}`; if there are any, `misfits`, the tasks that do not fit the model with the reason, and
        `samples_without_a_label`, how many samples do not count because a label is missing. Without exact truth also
        `references`, what each pair is measured against, `skipped`, the tasks that were not scored and why, and
        `modalities_left_out`, those of 4M-7 that have no labels.
    """
    names = required_names()
    samples = load_samples(data, data.split, names, config.max_samples)
    fitted = load_samples(data, data.fit_split, names, config.max_samples)
    tasks, skipped = select_tasks(samples, encoder)
    for name, reason in skipped.items():
        logger.info("Evaluation task %s is skipped because %s.", name, reason)
    context = TaskContext(samples, encoder, config)
    misfits: dict[str, str] = {}
    table = score_tasks(any_to_any, context, fitted, tasks, seed, paired=paired, misfits=misfits, worst=worst)
    reference = "exact truth" if samples.exact else "the teachers' labels (this source has no exact truth)"
    reference += RELATIVE if has_relative_depth(any_to_any) and "rgb->depth" in table else ""
    found = {"out_of_the_box": table, "samples": len(samples), "reference": reference}
    found |= {"misfits": misfits} if misfits else {}
    found |= {"samples_without_a_label": samples.incomplete} if samples.incomplete else {}
    if samples.exact:
        return found
    references = {task.pair: reference_of(task, labelers or {}) for task in tasks if task.pair in table}
    left_out = [name for name in LABELS_OF_4M_7 if name not in (*SOURCE_LABELS, *samples.labels)]
    return found | {"references": references, "skipped": skipped, "modalities_left_out": left_out}


def reference_of(task: PredictionTask, labelers: Mapping[str, str]) -> str:
    """Return in words what a task is measured against where there is no exact truth.

    Args:
        task: the task.
        labelers: what made the labels, by modality.
    """
    captions = "the captions of the source"
    if made := labelers.get("caption"):
        captions = f"captions (labels: {made}; those of the source are among them unless they are replaced)"
    if task.target == "caption":
        return captions
    if task.pair == "caption->rgb":
        return f"{captions}, through the text encoder"
    maker = labelers.get(task.target, "a labeler")
    return f"labels: {maker}" + (f"; retrieval: {captions}" if task.needs_encoder else "")


def score_tasks(
    any_to_any: Predictor,
    context: TaskContext,
    fitted: Samples | None,
    tasks: Sequence[PredictionTask],
    seed: int,
    *,
    paired: PairedScores | None = None,
    misfits: dict[str, str] | None = None,
    worst: WorstCases | None = None,
) -> Table:
    """Predict the targets of some tasks and return the table of their metrics; tasks of one pair share its entry.

    On a CPU several pairs are predicted and scored at once, each with one thread (`fourfold.local_workers`).

    Args:
        any_to_any: the model.
        context: the samples, the text encoder and the settings, an `EvaluationConfig`.
        fitted: samples that the trivial answers are fitted on; None: no trivial answers.
        tasks: the tasks, selected by `select_tasks`.
        seed: of generation, of the bootstrap and of the shuffled control.
        paired: collects replicates for comparisons with other models.
        misfits: collects why tasks that do not fit the model are skipped, by name.
        worst: collects the samples that are predicted worst.
    """
    config = context.config
    assert isinstance(config, EvaluationConfig)
    context = replace(context, relative_depth=has_relative_depth(any_to_any))
    tasks, unfit = fitting_tasks(any_to_any, context.samples, tasks)
    whole, whole_fitted = context, fitted
    captioned = replace(context, samples=context.samples.captioned)
    captioned_fitted = fitted.captioned if fitted is not None and fitted.is_captioned.any() else None

    def score(pair: tuple[str, str]) -> list[Scored] | str:
        context, fitted = (captioned, captioned_fitted) if "caption" in pair else (whole, whole_fitted)
        predicted = predict_pairs(any_to_any, context.samples, [pair], config, seed)[pair]
        if reason := shape_misfit(predicted, context.samples, pair[1]):
            return reason
        scored: list[Scored] = []
        for index, task in enumerate(tasks):
            if (task.source, task.target) == pair:
                can_fit = fitted is not None and not task.missing(fitted, context.encoder)
                columns = score_columns(task, context, fitted if can_fit else None, predicted, seed)
                entry = entries(task.random_stream or task.name, columns, seed, config.replicates)
                replicates = paired.measure(task, context, columns) if paired is not None else {}
                found = worst.find(task, context, predicted, columns) if worst is not None and not scored else {}
                scored.append((index, entry, replicates, found))
        return scored

    pairs = task_pairs(tasks)
    answers = list(progress(results_of(score, pairs), "evaluation", len(pairs), "pair"))
    reasons = {pair: answer for pair, answer in zip(pairs, answers, strict=True) if isinstance(answer, str)}
    unfit |= {task.name: reasons[task.source, task.target] for task in tasks if (task.source, task.target) in reasons}
    for name, reason in unfit.items():
        logger.warning("Evaluation task %s is skipped, because it does not fit the model: %s.", name, reason)
    if misfits is not None:
        misfits |= unfit
    table: Table = {}
    scored = chain.from_iterable(answer for answer in answers if not isinstance(answer, str))
    for index, entry, replicates, found in sorted(scored, key=itemgetter(0)):
        task = tasks[index]
        if worst is not None:
            worst.add(task, found)
        if paired is not None:
            paired.add(replicates, len(context.samples))
        if lost := [metric.title for metric in task.metrics if not any(map(metric.describes, entry))]:
            logger.info("Evaluation task %s: nothing to compare for %s.", task.name, ", ".join(lost))
        if entry:
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
