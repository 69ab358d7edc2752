"""Semantic segmentation of whole data sets: mean IoU over classes, from intersections and unions that are summed over images.

PASCAL VOC (Everingham et al. 2010), and MMSegmentation's `IoUMetric`. Averaging the IoU of each image is another metric.
"""

# H W image, C classes

import numpy as np

from fourfold.metrics.running import Bootstrap, RunningSums, Score

IGNORED = 255


class SegmentationScorer:
    """Adds up images of any size; memory does not grow with their number."""

    def __init__(self, num_classes: int, bootstrap: Bootstrap, ignored: int = IGNORED) -> None:
        """Start without images.

        Args:
            num_classes: ids 0 to C - 1 are classes.
            bootstrap: of the intervals.
            ignored: true id of pixels that do not count.
        """
        self.num_classes, self.ignored = num_classes, ignored
        self._sums = RunningSums(bootstrap)

    def add(self, predicted_HW: np.ndarray, truth_HW: np.ndarray) -> None:
        """Add one image. A predicted id that is no class is wrong everywhere and no false positive of any class.

        Raises:
            ValueError: the shapes differ, or the truth has an id that is neither a class nor ignored.
        """
        areas_3C = class_areas(predicted_HW, truth_HW, self.num_classes, self.ignored)
        self._sums.add(areas_3C.reshape(-1))

    def scores(self) -> dict[str, Score]:
        """Return `miou`, `mean_accuracy` of classes and `pixel_accuracy`, 0 to 1; classes that occur nowhere do not count."""
        return {
            "miou": self._sums.score(lambda sums: _mean_of_defined(self._ious(sums))),
            "mean_accuracy": self._sums.score(lambda sums: _mean_of_defined(self._accuracies(sums))),
            "pixel_accuracy": self._sums.score(self._pixel_accuracy),
        }

    def iou_of_classes(self) -> np.ndarray:
        """Return the IoU of each class (C,); NaN for one that occurs neither in the truth nor in the predictions."""
        sums = self._sums.sums()
        return self._ious(sums[None])[0] if len(sums) else np.full(self.num_classes, np.nan)

    def _ious(self, sums: np.ndarray) -> np.ndarray:
        intersection, predicted, truth = np.moveaxis(sums.reshape(-1, 3, self.num_classes), 1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return intersection / (predicted + truth - intersection)

    def _accuracies(self, sums: np.ndarray) -> np.ndarray:
        intersection, _, truth = np.moveaxis(sums.reshape(-1, 3, self.num_classes), 1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return intersection / truth

    def _pixel_accuracy(self, sums: np.ndarray) -> np.ndarray:
        intersection, _, truth = np.moveaxis(sums.reshape(-1, 3, self.num_classes), 1, 0)
        return intersection.sum(axis=1) / truth.sum(axis=1)


def class_areas(predicted_HW: np.ndarray, truth_HW: np.ndarray, num_classes: int, ignored: int = IGNORED) -> np.ndarray:
    """Return pixels of each class in the intersection, the prediction and the truth, int64 (3, C), without ignored pixels.

    Raises:
        ValueError: the shapes differ, or the truth has an id that is neither a class nor ignored.
    """
    predicted_HW, truth_HW = np.asarray(predicted_HW), np.asarray(truth_HW)
    if predicted_HW.shape != truth_HW.shape:
        raise ValueError(
            f"The prediction has shape {predicted_HW.shape} and the truth {truth_HW.shape}. "
            "Resize the prediction to the size of the truth."
        )
    counted = truth_HW != ignored
    predicted, truth = predicted_HW[counted].astype(np.int64), truth_HW[counted].astype(np.int64)
    if truth.size and not 0 <= truth.min() <= truth.max() < num_classes:
        wrong = truth[(truth < 0) | (truth >= num_classes)][0]
        raise ValueError(f"The truth has class id {wrong}; allowed: 0 to {num_classes - 1} and {ignored} (ignored).")
    predicted = np.where((predicted >= 0) & (predicted < num_classes), predicted, num_classes)
    kinds = (truth[predicted == truth], predicted, truth)
    return np.stack([np.bincount(ids, minlength=num_classes + 1)[:num_classes] for ids in kinds])


def _mean_of_defined(values_RC: np.ndarray) -> np.ndarray:
    """Return the mean over classes (R,) without those that are NaN."""
    defined = np.isfinite(values_RC)
    return np.where(defined, values_RC, 0).sum(axis=1) / defined.sum(axis=1)
