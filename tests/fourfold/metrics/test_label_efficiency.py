"""Label efficiency in cases whose answer is known."""

import pytest

from fourfold.metrics.label_efficiency import curves_of, describe, equal_quality, labels_needed
from fourfold.metrics.metric import Metric

ACCURACY, ERROR = Metric("accuracy", "accuracy"), Metric("abs_rel", "AbsRel", lower_is_better=True)


def test_a_metric_that_is_linear_in_the_logarithm_is_inverted_exactly():
    curve = [(100, 0.5), (1000, 0.7), (10000, 0.9)]
    assert labels_needed(curve, 0.6, False) == (pytest.approx(10**2.5), False)
    assert labels_needed(curve, 0.7, False) == (pytest.approx(1000), False)
    assert labels_needed(curve, 0.5, False) == (100, True)  # the fewest labels suffice: a bound
    assert labels_needed(curve, 0.91, False) == (None, False)
    errors = [(count, 1 - value) for count, value in curve]
    assert labels_needed(errors, 0.4, True) == (pytest.approx(10**2.5), False)


def test_the_first_crossing_counts_where_a_curve_is_not_monotone():
    curve = [(10, 0.2), (100, 0.6), (1000, 0.4), (10000, 0.8)]
    assert labels_needed(curve, 0.5, False)[0] == pytest.approx(10**1.75)


def test_arms_are_compared_at_the_most_labels_of_the_others():
    def arms(**means):
        return {"accuracy": {arm: {"mean": mean, "std": 0.01, "n": 3} for arm, mean in means.items()}}

    transfer = {
        "vqa_100": arms(pretrained=0.5, scratch=0.3, baseline=0.2),
        "vqa_1000": arms(pretrained=0.7, scratch=0.6, baseline=0.45),
        "my_vqa_100": arms(pretrained=0.0),
    }
    curves = curves_of(transfer, "vqa", "accuracy")
    assert curves["scratch"] == [(100, 0.3, 0.01), (1000, 0.6, 0.01)]
    scratch, baseline = equal_quality(curves, ACCURACY, "pretrained")
    assert (scratch.reference, scratch.reference_labels, scratch.quality) == ("scratch", 1000, 0.6)
    assert scratch.labels == pytest.approx(10**2.5) and not scratch.is_bound and baseline.is_bound
    titles = {"scratch": "from scratch"}
    assert describe(scratch, titles) == (
        "pretrained needs 316 labels to equal from scratch with 1,000 (0.600): 3.2 times fewer."
    )
    assert "at most 100 labels" in describe(baseline, {}) and "at least 10.0 times fewer" in describe(baseline, {})
    (worse, _) = equal_quality(curves, ACCURACY, "scratch")
    assert describe(worse, titles) == "from scratch does not reach pretrained with 1,000 labels (0.700)."
    assert equal_quality(curves, ACCURACY, "nobody") == []


def test_a_metric_whose_zero_is_best_is_compared_the_other_way():
    curves = {"pretrained": [(100, 0.2, 0.0), (1000, 0.1, 0.0)], "scratch": [(1000, 0.15, 0.0)]}
    (equal,) = equal_quality(curves, ERROR, "pretrained")
    assert equal.labels == pytest.approx(10**2.5)
