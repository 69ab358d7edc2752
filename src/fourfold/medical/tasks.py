"""Evaluation of scans: the image → another scan, in gray levels."""

# N samples, H rows, W columns

from functools import cache

import numpy as np

from fourfold.evaluation.samples import Samples
from fourfold.evaluation.tasks import PredictionTask, TaskContext
from fourfold.metrics.dense import psnr_statistic
from fourfold.metrics.metric import Metric
from fourfold.metrics.statistics import Statistic, mean


@cache
def scan_task(name: str, about: str) -> PredictionTask:
    """Return the task `rgb->NAME`, the same object each time."""

    def score(predicted: np.ndarray, context: TaskContext) -> dict[str, Statistic]:
        return gray_statistics(predicted, context.samples.labels[name])

    def trivial(fitted: Samples) -> np.ndarray:
        return np.rint(fitted.labels[name].astype(np.float64).mean(axis=0)).astype(np.uint8)

    return PredictionTask(
        source="rgb",
        target=name,
        metrics=(
            Metric("mae", "MAE", "mean absolute error in gray levels of 0–255", lower_is_better=True),
            Metric("psnr", "PSNR", "peak signal-to-noise ratio in dB, mean over images"),
        ),
        score=score,
        trivial=trivial,
        labels=(name,),
        headline=True,
        gallery_title=about,
    )


def gray_statistics(predicted: np.ndarray, truth: np.ndarray) -> dict[str, Statistic]:
    """Return `mae` and `psnr` of gray images uint8 (N, H, W) in windowed gray levels: no quantity of the scan."""
    difference_NHW = np.abs(predicted.astype(np.float64) - truth.astype(np.float64))
    return {"mae": mean(difference_NHW.mean(axis=(1, 2))), "psnr": psnr_statistic(predicted, truth)}
