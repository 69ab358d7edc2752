"""Label efficiency of the arms: how many labels each needs to equal another one, as a table, sentences and a chart."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fourfold.digests import recorded_path
from fourfold.metrics.label_efficiency import (
    ARM_TITLES,
    MIN_POINTS,
    arm_titles,
    curves_of,
    describe,
    draw_curves,
    equal_quality,
)
from fourfold.transfer.tasks import TransferTask

logger = logging.getLogger(__name__)
CHART = "label_efficiency.png"
PANEL = (4.2, 3.2)  # inches
COLORS = ("#b4451f", "#1d5f8a", "#6f6a2c", "#7a4f9a", "#2f7d4f", "#555555")  # of arms, in their order


def label_efficiency(transfer: Mapping[str, Any], tasks: Mapping[str, TransferTask], arm: str) -> dict[str, Any]:
    """Return, for each task with enough numbers of labels, what an arm needs to equal the others.

    Args:
        transfer: mean and deviation of each arm, of `tabulate`.
        tasks: by name; the main metric of each counts.
        arm: the arm that is compared with the others.

    Returns:
        `{"vqa": {"metric": "accuracy", "arm": arm, "equal_quality": [{"reference", "reference_labels", "quality", "labels",
        "is_bound"}]}}`; `labels` is null where the arm is worse with all labels.
    """
    found = {}
    for name, task in tasks.items():
        curves = curves_of(transfer, name, task.main_metric.name)
        if max(map(len, curves.values()), default=0) < MIN_POINTS:
            continue
        rows = equal_quality(curves, task.main_metric, arm)
        for row in rows:
            logger.info("Transfer task %s: %s", name, describe(row, ARM_TITLES))
        equal = [{key: value for key, value in vars(row).items() if key != "arm"} for row in rows]
        found[name] = {"metric": task.main_metric.name, "arm": arm, "equal_quality": equal}
    return found


def write_chart(transfer: Mapping[str, Any], tasks: Mapping[str, TransferTask], folder: Path) -> Path:
    """Write the curves of the main metric of each task as `label_efficiency.png`; returns the path."""
    titles = arm_titles(transfer)
    colors = {arm: COLORS[index % len(COLORS)] for index, arm in enumerate(titles)}
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(PANEL[0] * len(tasks), PANEL[1]), layout="constrained", dpi=150)
        for number, (name, task) in enumerate(tasks.items(), start=1):
            axes, metric = figure.add_subplot(1, len(tasks), number), task.main_metric
            draw_curves(axes, curves_of(transfer, name, metric.name), colors)
            axes.set_title(task.title)
            axes.set_ylabel(f"{metric.title} {'↓' if metric.lower_is_better else '↑'}")
        handles = [Line2D([], [], color=colors[arm], marker="o", label=title) for arm, title in titles.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
        with recorded_path(folder, CHART) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})
    return folder / CHART
