"""RGB → edges, palettes and metadata (4M-21, arXiv 2406.09406): computed from the image, so their labels are exact."""

# N samples, H height, W width, P predicted colors, T true colors

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.spatial.distance import cdist

from fourfold.evaluation.tasks.protocol import PredictionTask, TaskContext
from fourfold.metrics.dense import edge_statistic
from fourfold.metrics.metric import Metric
from fourfold.metrics.statistics import Statistic, mean, ratio, value
from fourfold.modalities.metadata import METADATA_TYPES

Palettes = Mapping[str, Sequence[Sequence[float]]]  # by their number of colors: {"1": [[r, g, b]], "2": ...}
MAX_DISTANCE = 255 * 3**0.5  # between black and white
EDGE_QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995)


def palette_statistics(predicted: Sequence[Palettes], truth: Sequence[Palettes]) -> dict[str, Statistic]:
    """Return `color_distance`: from each color of one palette to the nearest of the other, in both directions (RGB, 0-255).

    A prediction holds one palette; it is compared with the true one of its size, or with the largest if there is none.
    Samples without a true palette do not count.
    """
    distances = [_distance(*pair) for pair in zip(predicted, truth, strict=True)]
    return {"color_distance": mean(distances, [bool(palettes) for palettes in truth])}


def _distance(predicted: Palettes, truth: Palettes) -> float:
    if not predicted or not truth:
        return MAX_DISTANCE
    size, colors = next(iter(predicted.items()))
    distance_PT = cdist(colors, truth.get(size) or truth[max(truth, key=int)])
    return float(distance_PT.min(axis=0).mean() + distance_PT.min(axis=1).mean()) / 2


def mean_palette(samples: Sequence[Palettes]) -> Palettes:
    """Return one palette for all: the mean color of each rank in the palettes of the most frequent largest size."""
    largest = [max(palettes, key=int) for palettes in samples if palettes]
    if not largest:
        return {}
    size = Counter(largest).most_common(1)[0][0]
    return {size: np.mean([palettes[size] for palettes in samples if size in palettes], axis=0).tolist()}


def metadata_statistics(predicted: Sequence[Mapping[str, float]], truth: Sequence[Mapping[str, float]]) -> dict[str, Statistic]:
    """Return `same_bin` and `near_bin`: shares of the true values whose bin is predicted, exactly or next to it.

    Bins are those in which metadata are written (`fourfold.modalities.metadata`); a missing prediction counts as wrong.
    """
    distances = [
        [_bin_distance(kind, ours.get(kind), true_value) for kind, true_value in theirs.items()]
        for ours, theirs in zip(predicted, truth, strict=True)
    ]
    counts_N = np.array([len(values) for values in truth])
    limits = {"same_bin": 0, "near_bin": 1}
    return {
        name: ratio(np.array([sum(distance <= limit for distance in each) for each in distances]), counts_N)
        for name, limit in limits.items()
    }


def _bin_distance(kind: str, predicted: float | None, truth: float) -> float:
    bins = METADATA_TYPES[kind]
    return np.inf if predicted is None else abs(bins.index(predicted) - bins.index(truth))


def most_frequent_metadata(samples: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return, for each type, the value of its most frequent bin."""
    kinds = dict.fromkeys(kind for values in samples for kind in values)
    bins = {kind: Counter(METADATA_TYPES[kind].index(v[kind]) for v in samples if kind in v) for kind in kinds}
    return {kind: METADATA_TYPES[kind].value(counts.most_common(1)[0][0]) for kind, counts in bins.items()}


def most_frequent_edges(edges_NHW: np.ndarray) -> np.ndarray:
    """Return the map uint8 (H, W), 0 or 255, of the pixels that are edges most often: as many as give the best F1."""
    share_HW = (edges_NHW > 0).mean(axis=0)
    maps = [np.where(share_HW > level, 255, 0).astype(np.uint8) for level in np.quantile(share_HW, EDGE_QUANTILES)]
    count = len(edges_NHW)
    return max(maps, key=lambda edges_HW: value(edge_statistic(np.repeat(edges_HW[None], count, axis=0), edges_NHW)))


def _score_edges(predicted: np.ndarray, context: TaskContext) -> dict[str, Statistic]:
    return {"f1": edge_statistic(predicted, context.samples.labels["canny_edge"])}


COMPUTED_TASKS = (  # without a teacher: the labels are the truth
    PredictionTask(
        source="rgb",
        target="canny_edge",
        metrics=(Metric("f1", "edge F1", "F1 of edge pixels, within one pixel"),),
        score=_score_edges,
        trivial=lambda fitted: most_frequent_edges(fitted.labels["canny_edge"]),
        labels=("canny_edge",),
    ),
    PredictionTask(
        source="rgb",
        target="color_palette",
        metrics=(
            Metric(
                "color_distance",
                "color distance",
                "from a color to the nearest of the true palette and back, levels of 0–255",
                lower_is_better=True,
            ),
        ),
        score=lambda predicted, context: palette_statistics(predicted, context.samples.labels["color_palette"]),
        trivial=lambda fitted: mean_palette(fitted.labels["color_palette"]),
        labels=("color_palette",),
    ),
    PredictionTask(
        source="rgb",
        target="metadata",
        metrics=(
            Metric("same_bin", "same bin", "share of the true values whose bin is predicted"),
            Metric("near_bin", "near bin", "share of the true values whose bin, or one next to it, is predicted"),
        ),
        score=lambda predicted, context: metadata_statistics(predicted, context.samples.labels["metadata"]),
        trivial=lambda fitted: most_frequent_metadata(fitted.labels["metadata"]),
        labels=("metadata",),
    ),
)
