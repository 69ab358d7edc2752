"""The frequent answers of a benchmark of questions as classes, with the soft targets of the literature on VQAv2."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache

from fourfold.evaluation.benchmarks.object_measures import Question
from fourfold.metrics.answers import normalize_answer
from fourfold.transfer.examples import Targets

SCORE_OF_A_PERSON = 0.3  # soft target of an answer for each person who gave it, up to 1
normalized = lru_cache(maxsize=1 << 18)(normalize_answer)


class AnswerVocabulary:
    """The answers that a model can give, and the soft targets of questions.

    An answer is in it if it is the most frequent one of at least `min_questions` questions, after the normalization of VQAv2
    (Teney et al. 2017, arXiv 1708.02711). The code of hengyuan-hu/bottom-up-attention-vqa, whose 3,129 answers later work uses,
    counts the questions of `train` and `val`; here `train` alone counts, because `val` is scored, so there are fewer. The model
    gives each answer as people wrote it most often, because the official evaluation does not normalize where all people agree.
    """

    def __init__(self, questions: Iterable[Question], min_questions: int, is_exact: bool) -> None:
        """Count answers.

        Args:
            questions: of the training split.
            min_questions: that an answer must have.
            is_exact: questions have one answer, which is compared letter by letter, so nothing is normalized.

        Raises:
            ValueError: no answer is frequent enough.
        """
        self._is_exact = is_exact
        count, spellings = Counter[str](), defaultdict[str, Counter[str]](Counter)
        for question in questions:
            plain = [self._plain(answer) for answer in question.answers]
            count.update(answer for answer, _ in Counter(plain).most_common(1))
            for answer, written in zip(plain, question.answers, strict=True):
                spellings[answer][written] += 1
        kept = sorted((answer for answer, number in count.items() if number >= min_questions), key=lambda a: (-count[a], a))
        if not kept:
            raise ValueError(
                f"No answer has {min_questions} questions in the training split; the most frequent one has "
                f"{max(count.values(), default=0)}. Lower min_questions of the task in finetuning.benchmarks."
            )
        self._index_of = {answer: index for index, answer in enumerate(kept)}
        # Of equally frequent spellings the first in the alphabet
        self.answers = tuple(max(sorted(spellings[answer]), key=spellings[answer].__getitem__) for answer in kept)

    def _plain(self, answer: str) -> str:
        return answer if self._is_exact else normalized(answer)

    def soft_targets(self, question: Question) -> dict[int, float]:
        """Return the targets of the answers that people gave, by index: min(1, 0.3 · number of people); of one answer, 1."""
        count = Counter(self._plain(answer) for answer in question.answers)
        each = 1.0 if self._is_exact else SCORE_OF_A_PERSON
        return {self._index_of[a]: min(1.0, each * number) for a, number in count.items() if a in self._index_of}

    def make_targets(self, questions: Sequence[Question], seed: int) -> Targets:
        """Return questions as prompts and soft targets as labels."""
        return Targets([question.text for question in questions], labels=[self.soft_targets(each) for each in questions])
