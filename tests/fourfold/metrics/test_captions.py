"""Captions and answers, compared with stored results of pycocoevalcap 1.2 (with Java) and of the VQA evaluation code.

The normalization is that of `vqa_eval.py` in salesforce-lavis 1.0.2, with the order of steps of GT-Vision-Lab/VQA at commit
a013f00.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from fourfold.metrics.answers import ExactScorer, VqaScorer, normalize_answer, vqa_accuracy
from fourfold.metrics.captions import CaptionScorer, cider_scores, tokenize
from fourfold.metrics.running import Bootstrap

STORED = json.loads((Path(__file__).parents[2] / "reference/benchmark_metrics.json").read_text())
FEW = Bootstrap(replicates=20)


def test_caption_metrics_equal_pycocoevalcap(monkeypatch):
    monkeypatch.setattr("fourfold.metrics.captions.tokenize", str.split)  # the stored captions are tokenized
    stored = STORED["tokens"]
    scorer = CaptionScorer(FEW)
    for caption, references in zip(stored["captions"], stored["references"], strict=True):
        scorer.add(caption, references)
    scores = scorer.scores()
    for name in ("bleu4", "rouge_l", "cider"):
        assert scores[name].value == pytest.approx(stored[name], rel=1e-9)
        assert scores[name].interval[0] < scores[name].value < scores[name].interval[1]
    split = [[reference.split() for reference in group] for group in stored["references"]]
    each = cider_scores([caption.split() for caption in stored["captions"]], split)
    assert each == pytest.approx(np.array(stored["cider_each"]), rel=1e-9)


def test_tokens_equal_those_of_the_java_tokenizer():
    differing = {caption for caption, tokens in STORED["tokenizer"] if " ".join(tokenize(caption)) != tokens}
    assert not differing
    assert tokenize("A RED sphere.") == tokenize("a red sphere")


def test_a_caption_needs_references():
    with pytest.raises(ValueError, match="no reference caption"):
        CaptionScorer(FEW).add("a dog", [])
    assert np.isnan(CaptionScorer(FEW).scores()["cider"].value)
    scorer = CaptionScorer(FEW)
    scorer.add("", ["a dog"])
    scorer.add("a dog", ["a dog", "a cat"])
    assert 0 < scorer.scores()["rouge_l"].value < 1


def test_answers_are_normalized_as_in_the_official_code():
    for text, expected in STORED["vqa"]["normalized"]:
        assert normalize_answer(text) == expected, text


def test_accuracies_equal_the_official_code():
    scorer = VqaScorer(FEW)
    for index, (answer, truths, expected) in enumerate(STORED["vqa"]["accuracy"]):
        assert scorer.add(answer, truths, ("yes/no", "other")[index % 2]) == pytest.approx(expected), (answer, truths)
    expected = np.array([row[2] for row in STORED["vqa"]["accuracy"]])
    scores = scorer.scores()
    assert scores["accuracy"].value == pytest.approx(expected.mean())
    assert scores["accuracy_yes/no"].value == pytest.approx(expected[::2].mean())


@pytest.mark.parametrize(("matches", "expected"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (9, 1)])
def test_accuracy_by_the_number_of_agreeing_people(matches, expected):
    assert vqa_accuracy("Yes!", ["yes"] * matches + [f"no {i}" for i in range(10 - matches)]) == pytest.approx(expected)


def test_equal_truths_are_not_normalized():
    assert vqa_accuracy("Black.", ["black"] * 10) == 0 and vqa_accuracy(" black\n", ["black"] * 10) == 1
    with pytest.raises(ValueError, match="no answers"):
        vqa_accuracy("yes", [])


def test_exact_answers():
    scorer = ExactScorer(FEW)
    assert scorer.add("yes", "yes") == 1 and scorer.add("Yes", "yes") == 0
    assert scorer.scores()["accuracy"].value == 0.5
