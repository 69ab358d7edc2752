"""Metrics of texts by their words alone, as statistics over samples."""

import re
from collections import Counter
from collections.abc import Sequence

from fourfold.metrics.statistics import Statistic, f1, mean

WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case, without punctuation."""
    return WORD.findall(text.lower())


def verbatim_statistic(predicted: Sequence[str], truth: Sequence[str]) -> Statistic:
    """Return the share of texts with exactly the true words in the true order; two texts without words do not count."""
    pairs = [(words(p), words(t)) for p, t in zip(predicted, truth, strict=True)]
    return mean([p == t for p, t in pairs], [bool(p or t) for p, t in pairs])


def word_f1_statistic(predicted: Sequence[str], truth: Sequence[str]) -> Statistic:
    """Return the micro-averaged F1 of the words of each text, as multisets."""
    pairs = [(Counter(words(p)), Counter(words(t))) for p, t in zip(predicted, truth, strict=True)]
    return f1([(p & t).total() for p, t in pairs], [p.total() for p, _ in pairs], [t.total() for _, t in pairs])
