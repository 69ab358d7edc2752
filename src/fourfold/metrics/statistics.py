"""Metrics as functions of weighted samples, and bootstrap confidence intervals.

Every metric is computed from what each sample contributes, before these contributions are summed. With all weights 1 the
result is the metric; with the multiplicities of a resampling with replacement it is one bootstrap replicate. So each metric
is written once, and 1,000 replicates of a sum are one matrix product.

This replaces `scipy.stats.bootstrap`, which calls the metric once per replicate: for an mIoU of 1,000 samples with 1,000
replicates it takes 0.32 s instead of 0.19 s, and for an AP50 about 590 s instead of 1.7 s (`python benchmarks/bootstrap.py`,
one core). The tests compare the intervals of both.
"""

# N samples, R bootstrap replicates, K sums per sample

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from fourfold.seeds import numpy_generator

Formula = Callable[[np.ndarray], np.ndarray]


class Statistic(Protocol):
    """A metric over N samples."""

    @property
    def num_samples(self) -> int:
        """Number of samples N."""

    def weighted(self, weights_RN: np.ndarray) -> np.ndarray:
        """Return the metric, float64 (R,), under R weightings of the samples; NaN where it is undefined."""


@dataclass(frozen=True)
class SumStatistic:
    """A metric that is a formula of sums over samples: a mean, a ratio, an F1, a mean IoU.

    `sums` is float64 (N, K), what each sample contributes; `formula` maps summed contributions (R, K) to the metric (R,).
    """

    sums: np.ndarray
    formula: Formula

    @property
    def num_samples(self) -> int:
        """Number of samples N."""
        return len(self.sums)

    def weighted(self, weights_RN: np.ndarray) -> np.ndarray:
        """Return the metric, float64 (R,), under R weightings of the samples."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.formula(weights_RN @ self.sums)


def ratio(numerator_N: np.ndarray, denominator_N: np.ndarray) -> SumStatistic:
    """Return Σ numerator / Σ denominator, e.g. a mean over pixels when samples have different numbers of valid pixels."""
    sums_NK = np.stack([numerator_N, denominator_N], axis=1).astype(np.float64)
    return SumStatistic(sums_NK, lambda sums: sums[:, 0] / sums[:, 1])


def mean(values_N: ArrayLike, counted_N: ArrayLike | None = None) -> SumStatistic:
    """Return the mean of one number per sample; over the samples of `counted_N` (bool) alone, if it is given.

    Leave out samples with nothing to compare: two empty answers are no agreement.
    """
    values_N = np.asarray(values_N, dtype=np.float64)
    weights_N = np.ones_like(values_N) if counted_N is None else np.asarray(counted_N, dtype=np.float64)
    return ratio(values_N * weights_N, weights_N)


def f1(true_positives_N: ArrayLike, predicted_N: ArrayLike, actual_N: ArrayLike) -> SumStatistic:
    """Return the micro-averaged F1 = 2 TP / (predicted + actual) of sets or multisets that are counted per sample."""
    sums_NK = np.stack([np.asarray(a, np.float64) for a in (true_positives_N, predicted_N, actual_N)], axis=1)
    return SumStatistic(sums_NK, lambda sums: 2 * sums[:, 0] / (sums[:, 1] + sums[:, 2]))


def value(statistic: Statistic) -> float:
    """Return the metric with equal weights; NaN when it is undefined."""
    return float(statistic.weighted(np.ones((1, statistic.num_samples)))[0])


def values(statistics: dict[str, Statistic]) -> dict[str, float]:
    """Return several metrics with equal weights, by name."""
    return {name: value(statistic) for name, statistic in statistics.items()}


def defined(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that are defined: where nothing could be compared, a metric is absent."""
    return {name: number for name, number in metrics.items() if np.isfinite(number)}


def confidence_interval(
    statistic: Statistic, seed: int, name: str, replicates: int = 1000, level: float = 0.95
) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval of a metric over samples (Efron 1979), None when it is undefined.

    Args:
        statistic: the metric.
        seed, name: determine the replicates, so they do not depend on what else is computed.
        replicates: how many resamplings are drawn.
        level: the coverage of the interval, 0 to 1.
    """
    count = statistic.num_samples
    if not count:
        return None
    uniform = np.full(count, 1 / count)
    weights_RN = numpy_generator(seed, "bootstrap", name).multinomial(count, uniform, size=replicates).astype(np.float64)
    replicates_R = statistic.weighted(weights_RN)
    replicates_R = replicates_R[np.isfinite(replicates_R)]
    if not len(replicates_R):
        return None
    low, high = np.quantile(replicates_R, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
