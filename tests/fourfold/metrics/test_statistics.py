"""Confidence intervals, compared with scipy and with the normal distribution."""

import numpy as np
import pytest
from scipy.stats import bootstrap, norm

from fourfold.metrics.statistics import confidence_interval, mean, ratio, value


def test_the_interval_of_a_mean_equals_that_of_scipy():
    sample = np.random.default_rng(3).normal(5, 2, 400)
    low, high = confidence_interval(mean(sample), seed=0, name="x", replicates=4000)
    reference = bootstrap(
        (sample,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(0)
    ).confidence_interval
    half = norm.ppf(0.975) * sample.std(ddof=1) / 20
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=0.02)
    assert (low, high) == pytest.approx((sample.mean() - half, sample.mean() + half), abs=0.03)


def test_the_interval_has_its_nominal_coverage():
    rng = np.random.default_rng(5)
    covered = 0
    for trial in range(200):
        low, high = confidence_interval(mean(rng.exponential(1, 80)), seed=trial, name="coverage", replicates=300)
        covered += low <= 1 <= high
    assert 0.86 <= covered / 200 <= 0.99


def test_the_same_seed_and_name_give_the_same_interval():
    statistic = ratio(np.arange(30.0), np.ones(30))
    assert confidence_interval(statistic, 1, "a") == confidence_interval(statistic, 1, "a")
    assert confidence_interval(statistic, 1, "a") != confidence_interval(statistic, 1, "b")


def test_an_undefined_metric_has_no_interval():
    nothing = ratio(np.zeros(5), np.zeros(5))
    assert np.isnan(value(nothing))
    assert confidence_interval(nothing, 0, "nothing") is None
