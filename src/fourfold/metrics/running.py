"""Metrics of data sets that do not fit in memory: sums over samples, and bootstrap intervals of formulas of these sums.

The bootstrap is the Poisson bootstrap (Chamandy et al. 2012, "Estimating Uncertainty for Massive Data Streams"): replicate r
counts each sample Poisson(1) times, which needs no list of the samples. So memory depends on the number of sums and of
replicates alone. `fourfold.metrics.statistics` resamples exactly N of N samples; for more than about 100 samples both agree.
"""

# N samples, R bootstrap replicates, K sums

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fourfold.seeds import numpy_generator

Formula = Callable[[np.ndarray], np.ndarray]
LEVEL = 0.95  # coverage of the intervals


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are computed; `name` separates the random numbers of different scores."""

    seed: int = 0
    name: str = "benchmark"
    replicates: int = 1000  # 0: no intervals

    def generator(self) -> np.random.Generator:
        """Return the source of the weights."""
        return numpy_generator(self.seed, "poisson_bootstrap", self.name)


@dataclass(frozen=True)
class Score:
    """A metric with its 95 % interval; None where there is none."""

    value: float
    interval: tuple[float, float] | None = None


class RunningSums:
    """Sums over a stream of samples, with the same sums of R bootstrap replicates."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self._rng, self._replicates = bootstrap.generator(), bootstrap.replicates
        self.samples = 0
        self._sums_K: np.ndarray | None = None
        self._replicated_RK: np.ndarray | None = None

    def add(self, contributions: np.ndarray) -> None:
        """Add what samples contribute: (N, K), or (K,) for one sample. The size of the batches does not matter.

        Raises:
            ValueError: samples of other batches contributed another number of sums.
        """
        rows_NK = np.atleast_2d(np.asarray(contributions, dtype=np.float64))
        if self._sums_K is None or self._replicated_RK is None:
            self._sums_K = np.zeros(rows_NK.shape[1])
            self._replicated_RK = np.zeros((self._replicates, rows_NK.shape[1]))
        if rows_NK.shape[1] != len(self._sums_K):
            raise ValueError(f"A sample contributes {rows_NK.shape[1]} sums; it must be {len(self._sums_K)}, as before.")
        weights_NR = self._rng.poisson(1.0, size=(len(rows_NK), self._replicates)).astype(np.float64)
        self._sums_K += rows_NK.sum(axis=0)
        self._replicated_RK += weights_NR.T @ rows_NK
        self.samples += len(rows_NK)

    def sums(self) -> np.ndarray:
        """Return the sums (K,); empty without samples."""
        return np.zeros(0) if self._sums_K is None else self._sums_K.copy()

    def score(self, formula: Formula) -> Score:
        """Return the metric `formula`, which maps sums (R, K) to values (R,); NaN where it is undefined."""
        if self._sums_K is None or self._replicated_RK is None:
            return Score(float("nan"))
        with np.errstate(invalid="ignore", divide="ignore"):
            number = float(formula(self._sums_K[None])[0])
            found_R = np.asarray(formula(self._replicated_RK)) if self._replicates else np.zeros(0)
        return Score(number, percentile_interval(found_R))

    def mean(self, column: int, count: int) -> Score:
        """Return the ratio of two sums: a mean if column `count` contains the number of values in `column`."""
        return self.score(lambda sums: sums[:, column] / sums[:, count])


def percentile_interval(replicates_R: np.ndarray) -> tuple[float, float] | None:
    """Return the percentile interval of bootstrap replicates; None if no replicate is defined."""
    finite_R = replicates_R[np.isfinite(replicates_R)]
    if not len(finite_R):
        return None
    low, high = np.quantile(finite_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
