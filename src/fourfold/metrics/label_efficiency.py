"""Label efficiency: how many labels an arm needs for the quality that another one reaches with more of them."""

# N numbers of labels

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fourfold.metrics.metric import Metric

ARM_TITLES = {"pretrained": "pretrained", "scratch": "from scratch", "baseline": "small CNN"}
MIN_POINTS = 3  # numbers of labels that make a curve
Curve = Sequence[tuple[int, float]]  # (number of labels, mean of a metric), in the order of the numbers


@dataclass(frozen=True)
class EqualQuality:
    """What an arm needs to be as good as another one is with the most labels."""

    arm: str
    reference: str  # the other arm
    reference_labels: int
    quality: float  # of the reference, with these labels
    labels: float | None  # that the arm needs; None: it is worse with all of them
    is_bound: bool = False  # whether the fewest labels that were tried suffice, so that the arm needs at most so many


def labels_needed(curve: Curve, quality: float, lower_is_better: bool) -> tuple[float | None, bool]:
    """Return the number of labels at which a curve reaches a quality, and whether its first point does so already.

    Between two points the metric is linear in the logarithm of the number of labels. The first crossing counts. None if the
    curve never gets there.
    """
    sign = -1 if lower_is_better else 1
    previous: tuple[int, float] | None = None
    for count, value in curve:
        if sign * value >= sign * quality:
            if previous is None:
                return float(count), True
            share = (quality - previous[1]) / (value - previous[1])
            return math.exp(math.log(previous[0]) + share * (math.log(count) - math.log(previous[0]))), False
        previous = (count, value)
    return None, False


def curves_of(transfer: Mapping[str, Any], task: str, metric: str) -> dict[str, list[tuple[int, float, float]]]:
    """Return (labels, mean, deviation over seeds) of each arm for a metric of a task, from `transfer` of the results."""
    points: dict[str, list[tuple[int, float, float]]] = {}
    for name, by_metric in transfer.items():
        of_task, _, count = name.rpartition("_")
        if of_task == task:
            for arm, found in by_metric.get(metric, {}).items():
                points.setdefault(arm, []).append((int(count), found["mean"], found["std"]))
    return {arm: sorted(each) for arm, each in points.items()}


def equal_quality(curves: Mapping[str, Sequence[tuple[int, float, float]]], metric: Metric, arm: str) -> list[EqualQuality]:
    """Return what an arm needs to equal each of the others at its largest number of labels."""
    own = [(count, mean) for count, mean, _ in curves.get(arm, ())]
    found = []
    for reference, points in curves.items():
        if reference != arm and own and points:
            count, quality, _ = points[-1]
            labels, is_bound = labels_needed(own, quality, metric.lower_is_better)
            found.append(EqualQuality(arm, reference, count, quality, labels, is_bound))
    return found


def arm_titles(transfer: Mapping[str, Any]) -> dict[str, str]:
    """Return the titles of the arms: those that have results, in their order, or the default ones if there are no others."""
    arms = dict.fromkeys(arm for by_metric in transfer.values() for by_arm in by_metric.values() for arm in by_arm)
    if not set(arms) - set(ARM_TITLES):
        return dict(ARM_TITLES)
    return {arm: ARM_TITLES.get(arm, arm.replace("_", " ")) for arm in arms}


def describe(equal: EqualQuality, titles: Mapping[str, str]) -> str:
    """Return one sentence about a comparison of two arms."""
    arm, other = titles.get(equal.arm, equal.arm), titles.get(equal.reference, equal.reference)
    if equal.labels is None:
        return f"{arm} does not reach {other} with {equal.reference_labels:,} labels ({equal.quality:.3f})."
    at_most, least = ("at most ", "at least ") if equal.is_bound else ("", "")
    times = equal.reference_labels / equal.labels
    factor = f": {least}{times:.1f} times fewer" if times >= 1.05 else ""
    return (
        f"{arm} needs {at_most}{round(equal.labels):,} labels to equal {other} with "
        f"{equal.reference_labels:,} ({equal.quality:.3f}){factor}."
    )


def draw_curves(axes: Any, series: Mapping[str, Sequence[tuple[int, float, float]]], colors: Mapping[str, str]) -> None:
    """Draw means with one standard deviation on matplotlib's axes, over the logarithm of the number of labels."""
    counts = sorted({count for points in series.values() for count, _, _ in points})
    for arm, points in series.items():
        labels, means, deviations = zip(*points, strict=True)
        style: dict[str, Any] = {"fmt": "o-", "markersize": 4, "linewidth": 1.4, "elinewidth": 1, "capsize": 2}
        axes.errorbar(labels, means, yerr=deviations, color=colors[arm], label=arm, gid=arm, **style)
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    axes.set_xlabel("labels")
