"""Answers to questions about images: the accuracies of VQAv2 and GQA.

VQAv2 (Goyal et al. 2017, arXiv 1612.00837) compares with ten answers of people, after the normalization of its evaluation code,
whose details are kept: they change the result. GQA (Hudson and Manning 2019, arXiv 1902.09506) has one answer.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from fourfold.metrics.running import Bootstrap, RunningSums, Score

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # in the order of the original
COUNTED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(COUNTED)}
ARTICLES = {"a", "an", "the"}
DIGITS_WITH_COMMA = re.compile(r"\d,\d")
FULL_STOP = re.compile(r"\.(?!\d)")
MAX_STOPS = 32  # the original passes the flags of the expression as the number of replacements
# Words that are written without one of their apostrophes get it back: "dont" → "don't", "couldnt've" → "couldn't've".
CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's how'd
how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't
'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're
they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll
who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
you've
""".split()  # noqa: SIM905  (a list of literals would take sixty lines)
WITH_APOSTROPHE = {
    word[:index] + word[index + 1 :]: word
    for word in CONTRACTIONS
    for index, letter in enumerate(word)
    if letter == "'" and word.count("'") < 4
} | {"somebody'd": "somebodyd"}  # so in the original


def normalize_answer(text: str) -> str:
    """Return an answer after the normalization of VQAv2: punctuation, numbers, articles and contractions."""
    has_comma = DIGITS_WITH_COMMA.search(text) is not None
    cleaned = text
    for mark in PUNCTUATION:
        is_apart = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if is_apart or has_comma else " ")
    cleaned = FULL_STOP.sub("", cleaned, count=MAX_STOPS)
    words = [NUMBERS.get(word, word) for word in cleaned.lower().split()]
    return " ".join(WITH_APOSTROPHE.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(answer: str, truths: Sequence[str]) -> float:
    """Return the accuracy of one answer: the mean over the truths of min(1, matches among the others / 3).

    If all truths are equal, nothing is normalized, as in the original.

    Raises:
        ValueError: there is no truth.
    """
    if not truths:
        raise ValueError("A question has no answers; at least one is needed. Leave the question out.")
    answer, *truths = (text.replace("\n", " ").replace("\t", " ").strip() for text in (answer, *truths))
    if len(set(truths)) > 1:
        answer, *truths = (normalize_answer(text) for text in (answer, *truths))
    matches = [truth == answer for truth in truths]
    return float(np.mean([min(1.0, (sum(matches) - own) / 3) for own in matches]))


class VqaScorer:
    """Averages the accuracy over questions, also by kind of answer (yes/no, number, other)."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self._sums = RunningSums(bootstrap)
        self._kinds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])

    def add(self, answer: str, truths: Sequence[str], kind: str = "") -> float:
        """Add one question and return its accuracy."""
        accuracy = vqa_accuracy(answer, truths)
        self._sums.add(np.array([accuracy, 1.0]))
        if kind:
            self._kinds[kind][0] += accuracy
            self._kinds[kind][1] += 1
        return accuracy

    def scores(self) -> dict[str, Score]:
        """Return `accuracy`, 0 to 1, and e.g. `accuracy_yes/no` for each kind of answer."""
        kinds = {f"accuracy_{kind}": Score(total / count) for kind, (total, count) in sorted(self._kinds.items())}
        return {"accuracy": self._sums.mean(0, 1), **kinds}


class ExactScorer:
    """Counts answers that are exactly right, as GQA's evaluation code does; case and punctuation matter."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self._sums = RunningSums(bootstrap)

    def add(self, answer: str, truth: str) -> float:
        """Add one question and return 1 or 0."""
        self._sums.add(np.array([float(answer == truth), 1.0]))
        return float(answer == truth)

    def scores(self) -> dict[str, Score]:
        """Return `accuracy`, 0 to 1."""
        return {"accuracy": self._sums.mean(0, 1)}
