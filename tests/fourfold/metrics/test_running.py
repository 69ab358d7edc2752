"""Sums over a stream, and their intervals, compared with scipy's bootstrap."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from fourfold.metrics.running import Bootstrap, RunningSums


def test_batches_of_any_size_give_the_same_score():
    rows = np.random.default_rng(0).random((50, 2))
    whole, parts, single = (RunningSums(Bootstrap(seed=1, replicates=30)) for _ in range(3))
    whole.add(rows)
    for part in (rows[:7], rows[7:8], rows[8:]):
        parts.add(part)
    for row in rows:
        single.add(row)
    expected = whole.mean(0, 1)
    for other in (parts, single):
        assert other.samples == 50 and other.mean(0, 1).value == pytest.approx(expected.value, rel=1e-12)
        assert other.mean(0, 1).interval == pytest.approx(expected.interval, rel=1e-12)


def test_intervals_agree_with_scipy():
    values = np.random.default_rng(0).gamma(2.0, size=400)
    sums = RunningSums(Bootstrap(replicates=4000))
    sums.add(np.column_stack([values, np.ones(400)]))
    score = sums.mean(0, 1)
    expected = bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0))
    width = expected.confidence_interval.high - expected.confidence_interval.low
    assert score.value == pytest.approx(values.mean())
    assert score.interval == pytest.approx(tuple(expected.confidence_interval), abs=0.06 * width)


def test_memory_does_not_depend_on_the_number_of_samples():
    sums = RunningSums(Bootstrap(replicates=10))
    sizes = []
    for _ in range(3):
        sums.add(np.ones((1000, 4)))
        sizes.append(sum(value.nbytes for value in vars(sums).values() if isinstance(value, np.ndarray)))
    assert sizes[0] == sizes[-1] == (4 + 40) * 8 and sums.samples == 3000


def test_without_samples_or_with_other_sums_there_is_no_score():
    assert np.isnan(RunningSums(Bootstrap()).mean(0, 1).value)
    sums = RunningSums(Bootstrap(replicates=2))
    sums.add(np.ones(3))
    with pytest.raises(ValueError, match="contributes 2 sums; it must be 3"):
        sums.add(np.ones(2))
