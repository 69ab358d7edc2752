"""Transfer tasks on the annotations that come with a source: classes, questions, captions of another style.

They read the splits `train`, `val` and `test` of the source itself. Pretraining saw the images of `train`, never an annotation;
it saw nothing of `test`. A task of which the data have too little is skipped with a reason.
"""

# N examples

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fourfold.data.annotations import ANNOTATIONS
from fourfold.data.shards import ShardSet
from fourfold.metrics.metric import Metric
from fourfold.metrics.statistics import value
from fourfold.metrics.text import verbatim_statistic, word_f1_statistic
from fourfold.seeds import numpy_generator
from fourfold.transfer.tasks import (
    TRANSFER_TASKS,
    AnnotatedTask,
    Examples,
    Targets,
    TransferData,
    TransferTask,
    annotation_counts,
    class_accuracies,
)

logger = logging.getLogger(__name__)
CATEGORY, QUESTIONS, CAPTIONS = "category", "questions", "captions"
MIN_PER_CLASS = 2  # images of `train`; a class with fewer is left out
MAX_CLASSES = 1_000  # the most frequent ones
MIN_EXAMPLES = 2  # of each split


def _count(shards: ShardSet, split: str, name: str) -> int:
    return annotation_counts(shards, split, name).total()


def missing_examples(shards: ShardSet, name: str, where: str) -> str | None:
    """Return why the splits have too few annotations of a kind; None if they have enough."""
    counts = {split: _count(shards, split, name) if split in shards.splits() else 0 for split in ("train", "val", "test")}
    if not any(counts.values()):
        return f"the source has none; {where}"
    small = [f"{split} has {count}" for split, count in counts.items() if count < MIN_EXAMPLES]
    return f"each split needs {MIN_EXAMPLES} annotated images, and {', '.join(small)}" if small else None


def _classification(task: TransferTask, data: TransferData) -> TransferTask | str:
    """Return the task with the classes of `train`."""
    shards = data.shards
    where = "give a folder for each class (ingestion.source.class_folders), or a column `class` or `label`"
    if (reason := missing_examples(shards, CATEGORY, where)) is not None:
        return reason
    counts = annotation_counts(shards, "train", CATEGORY)
    names = sorted(name for name, count in counts.most_common(MAX_CLASSES) if count >= MIN_PER_CLASS)
    if len(names) < 2:
        return f"it needs two classes with {MIN_PER_CLASS} images of train each, and there are {len(names)}"
    if left_out := len(counts) - len(names):
        logger.info("Classification: %d rare classes are left out, %d are learned.", left_out, len(names))
    known = {name: index for index, name in enumerate(names)}

    def targets(values: list[Any], seed: int) -> Targets:
        return Targets(classes={CATEGORY: np.array([known[one] for one in values])})

    annotated = AnnotatedTask(CATEGORY, lambda value: value in known)
    return replace(task, make_targets=targets, choices={CATEGORY: tuple(names)}, annotated=annotated, resolve=None)


def _if_annotated(name: str, where: str) -> Callable[[TransferTask, TransferData], TransferTask | str]:
    return lambda task, data: missing_examples(data.shards, name, where) or replace(task, resolve=None)


def _questions(values: list[Any], seed: int) -> Targets:
    """Ask one question about each image, drawn from its own."""
    rng = numpy_generator(seed, "transfer", "annotated questions", len(values))
    chosen = [questions[int(rng.integers(len(questions)))] for questions in values]
    return Targets([question for question, _ in chosen], [answer for _, answer in chosen])


def _captions(values: list[Any], seed: int) -> Targets:
    return Targets([""] * len(values), [captions[0] for captions in values])


def _accuracy(predicted: Sequence[str], examples: Examples) -> dict[str, float]:
    return {"accuracy": value(verbatim_statistic(predicted, examples.answers))}


def _words(predicted: Sequence[str], examples: Examples) -> dict[str, float]:
    answers = examples.answers
    return {
        "word_f1": value(word_f1_statistic(predicted, answers)),
        "verbatim": value(verbatim_statistic(predicted, answers)),
    }


ANNOTATED_TASKS = (
    TransferTask(
        name="classification",
        title="Classes of the source",
        metrics=(Metric("accuracy", "accuracy", "share of images whose class, one of those of the source, is right"),),
        make_targets=lambda values, seed: Targets(),  # `resolve` replaces it
        score=lambda predicted, examples: {"accuracy": class_accuracies(predicted, examples)["mean_accuracy"]},
        truth=ANNOTATIONS,
        resolve=_classification,
    ),
    TransferTask(
        name="questions",
        title="Questions of the source",
        metrics=(Metric("accuracy", "accuracy", "answers that are equal to that of the source word by word"),),
        make_targets=_questions,
        score=_accuracy,
        truth=ANNOTATIONS,
        annotated=AnnotatedTask(QUESTIONS),
        resolve=_if_annotated(QUESTIONS, "give columns `question` and `answer`"),
    ),
    TransferTask(
        name="second_captions",
        title="Second captions of the source",
        metrics=(
            Metric("word_f1", "word F1", "F1 over the words of the second caption"),
            Metric("verbatim", "verbatim", "captions that are equal to that of the source word by word"),
        ),
        make_targets=_captions,
        score=_words,
        truth=ANNOTATIONS,
        annotated=AnnotatedTask(CAPTIONS),
        resolve=_if_annotated(CAPTIONS, "give a column `second_caption`"),
    ),
)

for _task in ANNOTATED_TASKS:  # available without a plug-in
    TRANSFER_TASKS.register(_task.name, _task)
