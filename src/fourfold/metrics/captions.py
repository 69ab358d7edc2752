"""Captions against several references: BLEU-4, ROUGE-L and CIDEr-D as the COCO caption evaluation computes them.

BLEU: Papineni et al. 2002, of the whole corpus with the closest reference length. ROUGE-L: Lin 2004, beta 1.2. CIDEr-D:
Vedantam et al. 2015 (arXiv 1411.5726): its weights come from the references of the evaluated images, so subsets are not
comparable.
The official tokenizer is Stanford's, in Java; `tokenize` follows its rules for plain captions (see there).
"""

# n length of an n-gram

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from fourfold.metrics.running import Bootstrap, RunningSums, Score

MAX_N = 4
SIGMA = 6.0  # of CIDEr-D's penalty of other lengths
BETA = 1.2  # of ROUGE-L: weight of recall
SMALL, TINY = 1e-9, 1e-15  # as in the original
DROPPED = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";", '"'}  # after tokenization
# The original drops brackets by their names in upper case, but the tokenizer writes them in lower case: they stay.
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-"}
CLITIC = r"(?:'(?:s|m|d|re|ve|ll)\b|n't\b)"
TOKEN = re.compile(
    rf"\w+?(?={CLITIC})|{CLITIC}"  # "dog's" → "dog 's", "don't" → "do n't"
    r"|-[lr][rcs]b-|'til\b|'n'"
    r"|(?:[a-z]\.){2,}|\bno\.(?= ?\d)"  # "u.s.", "no. 7"
    r"|\d+(?:[.,:/]\d+)+"  # "1,000", "12:30"
    r"|\w+(?:[-/&']\w+)*"  # "t-shirt" is one token
    r"|\.\.\.|--|\S"
)
SPLIT = {"cannot": "can not", "gonna": "gon na", "gotta": "got ta", "wanna": "wan na", "gimme": "gim me", "lemme": "lem me"}

Grams = Counter[tuple[str, ...]]


def tokenize(caption: str) -> list[str]:
    """Return lower-case tokens without punctuation, after the rules of the Penn Treebank tokenizer of the official evaluation.

    It is "PTB-like": the Java original has more rules, e.g. for abbreviations, dates and emoticons.
    """
    words = " ".join(SPLIT.get(word, word) for word in caption.lower().split())
    return [BRACKETS.get(token, token) for token in TOKEN.findall(words) if token not in DROPPED]


def ngrams(tokens: Sequence[str]) -> Grams:
    """Return how often each n-gram of 1 to 4 tokens occurs."""
    return Counter(tuple(tokens[i : i + n]) for n in range(1, MAX_N + 1) for i in range(len(tokens) - n + 1))


def bleu_counts(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return what one caption contributes to BLEU (2 n + 2,): matched and possible n-grams, own and closest length."""
    counts, best = ngrams(candidate), Counter[tuple[str, ...]]()
    for reference in references:
        best |= ngrams(reference)
    matched = np.zeros(MAX_N)
    for gram, count in counts.items():
        matched[len(gram) - 1] += min(count, best[gram])
    possible = [max(0, len(candidate) - n + 1) for n in range(1, MAX_N + 1)]
    closest = min((abs(len(reference) - len(candidate)), len(reference)) for reference in references)[1]
    return np.array([*matched, *possible, len(candidate), closest], float)


def bleu(sums: np.ndarray) -> np.ndarray:
    """Return BLEU-4 (R,) of summed contributions (R, 10)."""
    matched, possible = sums[:, :MAX_N], sums[:, MAX_N : 2 * MAX_N]
    precision = np.prod((matched + TINY) / (possible + SMALL), axis=1) ** (1 / MAX_N)
    ratio = (sums[:, 2 * MAX_N] + TINY) / (sums[:, 2 * MAX_N + 1] + SMALL)
    return precision * np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1)), 1)


def rouge_l(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return ROUGE-L, 0 to 1: an F score of the best precision and the best recall of longest common subsequences."""
    if not candidate:
        return 0.0
    common = [_common_length(candidate, reference) for reference in references]
    precision = max(common) / len(candidate)
    recall = max((length / max(len(reference), 1) for length, reference in zip(common, references, strict=True)))
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision) if precision and recall else 0.0


def _common_length(first: Sequence[str], second: Sequence[str]) -> int:
    row = [0] * (len(second) + 1)
    for word in first:
        previous = 0
        for j, other in enumerate(second, 1):
            above = row[j]
            row[j] = previous + 1 if word == other else max(above, row[j - 1])
            previous = above
    return row[-1]


def cider_scores(candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> np.ndarray:
    """Return CIDEr-D of each caption (N,), 0 to 10."""
    counted = [[ngrams(reference) for reference in group] for group in references]
    frequency = Counter(gram for group in counted for gram in set().union(*group))
    log_count = math.log(max(len(references), 1))

    def vector(grams: Grams) -> tuple[list[dict[tuple[str, ...], float]], list[float], int]:
        weights: list[dict[tuple[str, ...], float]] = [{} for _ in range(MAX_N)]
        for gram, count in grams.items():
            weights[len(gram) - 1][gram] = count * (log_count - math.log(max(1, frequency[gram])))
        lengths = [math.sqrt(sum(weight**2 for weight in each.values())) for each in weights]
        return weights, lengths, sum(count for gram, count in grams.items() if len(gram) == 2)  # bigrams, as in the original

    scores = []
    for candidate, group in zip(candidates, counted, strict=True):
        mine = vector(ngrams(candidate))
        scores.append(10 * float(np.mean([_similarity(mine, vector(reference)) for reference in group])))
    return np.array(scores)


def _similarity(first: tuple, second: tuple) -> float:
    """Return the mean over n of the clipped cosine of two vectors, times the penalty of another length."""
    (weights, norms, length), (others, other_norms, other_length) = first, second
    penalty = math.exp(-((length - other_length) ** 2) / (2 * SIGMA**2))
    total = 0.0
    for n in range(MAX_N):
        product = sum(min(weight, others[n].get(gram, 0.0)) * others[n].get(gram, 0.0) for gram, weight in weights[n].items())
        total += product / (norms[n] * other_norms[n]) if norms[n] and other_norms[n] else product
    return penalty * total / MAX_N


class CaptionScorer:
    """Collects one caption and its references for each image. It keeps the tokens: CIDEr needs all references first."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self._bootstrap = bootstrap
        self._candidates: list[list[str]] = []
        self._references: list[list[list[str]]] = []

    def add(self, caption: str, references: Sequence[str]) -> None:
        """Add one image.

        Raises:
            ValueError: there is no reference.
        """
        if not references:
            raise ValueError("An image has no reference caption; at least one is needed. Leave the image out.")
        self._candidates.append(tokenize(caption))
        self._references.append([tokenize(reference) for reference in references])

    def scores(self) -> dict[str, Score]:
        """Return `bleu4`, `rouge_l` (0 to 1) and `cider` (0 to 10; papers print 100 times a tenth of it)."""
        pairs = list(zip(self._candidates, self._references, strict=True))
        if not pairs:
            return {name: Score(float("nan")) for name in ("bleu4", "rouge_l", "cider")}
        sums = RunningSums(self._bootstrap)
        rouge_N, cider_N = (np.array([rouge_l(*pair) for pair in pairs]), cider_scores(self._candidates, self._references))
        sums.add(np.column_stack([np.stack([bleu_counts(*pair) for pair in pairs]), rouge_N, cider_N, np.ones(len(pairs))]))
        first = 2 * MAX_N + 2
        return {"bleu4": sums.score(bleu), "rouge_l": sums.mean(first, first + 2), "cider": sums.mean(first + 1, first + 2)}
