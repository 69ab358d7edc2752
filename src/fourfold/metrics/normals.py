"""Surface normals by the protocol of public benchmarks: angles of all valid pixels of a split, pooled.

Fouhey et al. 2013; the thresholds and the strict comparison follow the evaluation code of DSINE (Bae and Davison 2024, arXiv
2403.00712). The median comes from a histogram, so memory does not grow with the number of pixels.
"""

# H W image, P valid pixels

import numpy as np

from fourfold.metrics.running import Bootstrap, RunningSums, Score

THRESHOLDS = (5.0, 7.5, 11.25, 22.5, 30.0)  # degrees
NUM_SUMS = 3 + len(THRESHOLDS)  # pixels, sum, sum of squares, then pixels below each threshold
FINE, COARSE = 180_000, 1_800  # bins from 0 to 180 degrees: of the median, and of its interval


def normal_angles_of(predicted_HW3: np.ndarray, truth_HW3: np.ndarray, valid_HW: np.ndarray) -> np.ndarray:
    """Return the angles in degrees (P,) between vectors of any length at the valid pixels; a predicted zero is 90 degrees."""
    predicted_P3 = predicted_HW3[valid_HW].astype(np.float64)
    truth_P3 = truth_HW3[valid_HW].astype(np.float64)
    lengths_P = np.linalg.norm(predicted_P3, axis=1) * np.linalg.norm(truth_P3, axis=1)
    cosine_P = (predicted_P3 * truth_P3).sum(axis=1) / np.maximum(lengths_P, 1e-12)
    return np.degrees(np.arccos(np.clip(cosine_P, -1, 1)))


class NormalScorer:
    """Pools the pixels of images."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self._sums = RunningSums(bootstrap)
        self._histogram = np.zeros(FINE, np.int64)

    def add(self, predicted_HW3: np.ndarray, truth_HW3: np.ndarray, valid_HW: np.ndarray) -> float | None:
        """Add one image and return its mean angle; None when no pixel is valid.

        Raises:
            ValueError: the shapes differ.
        """
        if predicted_HW3.shape != truth_HW3.shape or valid_HW.shape != truth_HW3.shape[:2]:
            shapes = f"{predicted_HW3.shape}, {truth_HW3.shape}, {valid_HW.shape}"
            raise ValueError(f"Prediction, truth and mask have shapes {shapes}; they must have the same height and width.")
        if not valid_HW.any():
            return None
        angle_P = normal_angles_of(predicted_HW3, truth_HW3, valid_HW)
        below = [float((angle_P < threshold).sum()) for threshold in THRESHOLDS]
        coarse = np.bincount(_bins(angle_P, COARSE), minlength=COARSE)
        self._histogram += np.bincount(_bins(angle_P, FINE), minlength=FINE)
        self._sums.add(np.concatenate([[len(angle_P), angle_P.sum(), (angle_P**2).sum(), *below], coarse]))
        return float(angle_P.mean())

    def scores(self) -> dict[str, Score]:
        """Return `mean`, `median` and `rmse` in degrees, and shares of pixels, e.g. `within_11.25`."""
        shares = {f"within_{limit:g}": self._sums.mean(3 + index, 0) for index, limit in enumerate(THRESHOLDS)}
        replicated = self._sums.score(lambda sums: np.array([median_of_bins(row[NUM_SUMS:]) for row in sums]))
        median = Score(median_of_bins(self._histogram), replicated.interval)
        rmse = self._sums.score(lambda sums: np.sqrt(sums[:, 2] / sums[:, 0]))
        return {"mean": self._sums.mean(1, 0), "median": median, "rmse": rmse, **shares}


def median_of_bins(counts: np.ndarray) -> float:
    """Return the median of angles in equal bins from 0 to 180 degrees, interpolated within its bin; NaN without any."""
    total = counts.sum()
    if not total:
        return float("nan")
    reached = np.cumsum(counts)
    bin_of_median = int(np.searchsorted(reached, total / 2))
    before = reached[bin_of_median] - counts[bin_of_median]
    return float((bin_of_median + (total / 2 - before) / counts[bin_of_median]) * 180 / len(counts))


def _bins(angle_P: np.ndarray, count: int) -> np.ndarray:
    return np.minimum((angle_P * (count / 180)).astype(np.int64), count - 1)
