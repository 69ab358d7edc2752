"""RGB → caption, scored by words alone. A plug-in that can read its captions' meaning replaces this task."""

import re
from collections import Counter
from collections.abc import Sequence

from fourfold.evaluation.tasks.protocol import PredictionTask, TaskContext
from fourfold.metrics.metric import Metric
from fourfold.metrics.statistics import Statistic, f1, mean, value

WORD = re.compile(r"\w+")
MAX_CANDIDATES = 200  # captions that are tried as the one answer for all images


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case, without punctuation."""
    return WORD.findall(text.lower())


def verbatim_statistic(predicted: Sequence[str], truth: Sequence[str]) -> Statistic:
    """Return the share of texts with exactly the true words in the true order."""
    return mean([words(p) == words(t) for p, t in zip(predicted, truth, strict=True)])


def word_f1_statistic(predicted: Sequence[str], truth: Sequence[str]) -> Statistic:
    """Return the micro-averaged F1 of the words of each text, as multisets."""
    pairs = [(Counter(words(p)), Counter(words(t))) for p, t in zip(predicted, truth, strict=True)]
    return f1([(p & t).total() for p, t in pairs], [p.total() for p, _ in pairs], [t.total() for _, t in pairs])


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
