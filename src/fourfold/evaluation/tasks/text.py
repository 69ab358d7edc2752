"""RGB → caption, scored by words alone. A plug-in that can read its captions' meaning replaces this task."""

from collections.abc import Sequence

from fourfold.evaluation.tasks.protocol import PredictionTask, TaskContext
from fourfold.metrics.metric import Metric
from fourfold.metrics.statistics import Statistic, value
from fourfold.metrics.text import verbatim_statistic, word_f1_statistic

MAX_CANDIDATES = 200  # captions that are tried as the one answer for all images


def score_captions(predicted: Sequence[str], context: TaskContext) -> dict[str, Statistic]:
    """Return `word_f1` and `verbatim`."""
    truth = context.samples.captions
    return {"word_f1": word_f1_statistic(predicted, truth), "verbatim": verbatim_statistic(predicted, truth)}


def best_caption(captions: Sequence[str]) -> str:
    """Return the caption with the highest word F1 if it is the answer for every image."""
    captions = captions[:MAX_CANDIDATES]
    return max(captions, key=lambda text: value(word_f1_statistic([text] * len(captions), captions)))


TEXT_TASKS = (
    PredictionTask(
        source="rgb",
        target="caption",
        metrics=(
            Metric("word_f1", "word F1", "F1 over the words of the caption"),
            Metric("verbatim", "verbatim", "captions that are equal to the truth word by word"),
        ),
        score=score_captions,
        trivial=lambda fitted: best_caption(fitted.captions),
        headline=True,
    ),
)
