"""Scores of what is computed from images rather than labeled by a network: palettes and metadata (4M-21), as sequences."""

# N samples, P predicted colors, T true colors

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.spatial.distance import cdist

from fourfold.metrics.statistics import Statistic, mean, ratio
from fourfold.modalities.metadata import METADATA_TYPES

Palettes = Mapping[str, Sequence[Sequence[float]]]  # by their number of colors, `{"1": [[r, g, b]], "2": ...}`
FURTHEST = 255 * 3**0.5  # black from white


def palette_statistics(predicted: Sequence[Palettes], truth: Sequence[Palettes]) -> dict[str, Statistic]:
    """Return `color_distance`: from each color of one palette to the nearest of the other, in both directions (RGB, 0-255).

    A prediction holds one palette; it is compared with the true one of its size, or with the largest where there is none.
    """
    return {"color_distance": mean([_distance(*pair) for pair in zip(predicted, truth, strict=True)])}


def _distance(predicted: Palettes, truth: Palettes) -> float:
    if not predicted or not truth:
        return 0.0 if predicted == truth else FURTHEST
    size, colors = next(iter(predicted.items()))
    distance_PT = cdist(colors, truth.get(size) or truth[max(truth, key=int)])
    return float(distance_PT.min(axis=0).mean() + distance_PT.min(axis=1).mean()) / 2


def mean_palette(known: Sequence[Palettes]) -> Palettes:
    """Return one palette for all: the means of the colors, by rank, of the palettes of the commonest largest size."""
    largest = [max(palettes, key=int) for palettes in known if palettes]
    if not largest:
        return {}
    size = Counter(largest).most_common(1)[0][0]
    return {size: np.mean([palettes[size] for palettes in known if size in palettes], axis=0).tolist()}


def metadata_statistics(predicted: Sequence[Mapping[str, float]], truth: Sequence[Mapping[str, float]]) -> dict[str, Statistic]:
    """Return `same_bin` and `near_bin`: shares of the true values whose bin is predicted, exactly or next to it.

    Bins are those that metadata are written in (`fourfold.modalities.metadata`); a value that is not predicted counts as wrong.
    """
    apart = [
        [_bins_apart(kind, said.get(kind), value) for kind, value in known.items()]
        for said, known in zip(predicted, truth, strict=True)
    ]
    counts_N = np.array([len(known) for known in truth])
    found = {"same_bin": 0, "near_bin": 1}
    return {name: ratio(np.array([sum(a <= most for a in each) for each in apart]), counts_N) for name, most in found.items()}


def _bins_apart(kind: str, predicted: float | None, truth: float) -> float:
    bins = METADATA_TYPES[kind]
    return np.inf if predicted is None else abs(bins.index(predicted) - bins.index(truth))


def commonest_metadata(known: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return, for each type, the value of the bin that is met most often."""
    kinds = dict.fromkeys(kind for values in known for kind in values)
    places = {kind: Counter(METADATA_TYPES[kind].index(v[kind]) for v in known if kind in v) for kind in kinds}
    return {kind: METADATA_TYPES[kind].value(counts.most_common(1)[0][0]) for kind, counts in places.items()}
