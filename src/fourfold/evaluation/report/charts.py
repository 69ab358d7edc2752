"""Charts of the report, drawn by matplotlib as SVG that takes its colors from the page: readable on light and dark.

Matplotlib writes fixed colors. Each color of `COLORS` is replaced by the CSS variable of the page that it stands for. Equal
data give equal text: the hash salt of the ids is fixed, and there is no date in the metadata.
"""

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from fourfold.metrics.label_efficiency import draw_curves

Point = tuple[float, float]

COLORS = {  # color in the SVG → CSS variable of the page
    "#010101": "--soft",  # text
    "#010102": "--rule-strong",  # axes
    "#010103": "--student",
    "#010104": "--teacher",
    "#010105": "--trivial",
    "#010106": "--shuffled",
    "#010107": "--card",
    "#010108": "--pretrained",
    "#010109": "--scratch",
    "#010110": "--baseline",
    "#010111": "--c0",
    "#010112": "--c1",
}
_COLOR_OF = {variable.removeprefix("--"): color for color, variable in COLORS.items()}
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "fourfold",  # ids of clip paths and markers would be random otherwise
    "svg.fonttype": "none",  # text stays text
    "font.size": 9,
    "text.color": _COLOR_OF["soft"],
    "axes.edgecolor": _COLOR_OF["rule-strong"],
    "axes.labelcolor": _COLOR_OF["soft"],
    "xtick.color": _COLOR_OF["soft"],
    "ytick.color": _COLOR_OF["soft"],
    "axes.spines.top": False,
    "axes.spines.right": False,
}
POINTS_PER_INCH = 72  # SVG lengths are points


def strip(
    marks: Mapping[str, float | None],
    interval: Sequence[float] | None,
    lower_is_better: bool,
    label: str,
    width: int = 180,
) -> str:
    """Return the values of one metric on one line, better to the right; a perfect 0 (lower is better) or 1 is its right end.

    Args:
        marks: `value` (a dot with its interval), `teacher` (a diamond), `trivial` (a bar) and `shuffled` (a cross).
        interval: the confidence interval of the value.
        lower_is_better: of the metric.
        label: the text that replaces the chart for screen readers.
        width: in points.
    """
    shown = {name: mark for name, mark in marks.items() if mark is not None}
    if "value" not in shown:
        return ""
    ends = [0.0, *shown.values(), *(interval or ()), *(() if lower_is_better else (1.0,))]
    low, high = min(ends), max(ends)
    margin = 0.04 * ((high - low) or 1)
    figure, axes = _figure(width, 18)
    axes.set_position((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_ylim(-1, 1)
    axes.set_xlim(*((high + margin, low - margin) if lower_is_better else (low - margin, high + margin)))
    axes.plot([low, high], [0, 0], color=_COLOR_OF["rule-strong"], linewidth=0.8, gid="axis")
    styles: dict[str, dict[str, Any]] = {
        "trivial": {"marker": "|", "markersize": 11, "markeredgewidth": 1.5},
        "shuffled": {"marker": "x", "markersize": 5.5, "markeredgewidth": 1.3},
        "teacher": {"marker": "D", "markersize": 6.5, "markerfacecolor": _COLOR_OF["card"], "markeredgewidth": 1.3},
    }
    for name, style in styles.items():
        if name in shown:
            axes.plot(shown[name], 0, linestyle="", color=_COLOR_OF[name], gid=name, **style)
    if interval:
        axes.plot(interval, [0, 0], color=_COLOR_OF["student"], linewidth=2.5, alpha=0.45, gid="interval")
    axes.plot(shown["value"], 0, "o", markersize=6, color=_COLOR_OF["student"], gid="student")
    return _svg(figure, label, "strip")


def arms_chart(
    arms: Mapping[str, Sequence[tuple[str, float, float]]], label: str, colors: Mapping[str, str], width: int = 320
) -> str:
    """Return means and standard errors as dots with bars, one row per group of arms.

    Args:
        arms: per group, e.g. "200 labels": (arm, mean, standard error).
        label: the text that replaces the chart for screen readers.
        colors: by arm, names of CSS variables of the page without their dashes.
        width: in points.
    """
    figure, axes = _figure(width, 30 + 26 * len(arms))
    for row, entries in enumerate(arms.values()):
        for index, (arm, mean, error) in enumerate(entries):
            level = row + (index - (len(entries) - 1) / 2) * 0.22
            color = _COLOR_OF.get(colors.get(arm, "soft"), _COLOR_OF["soft"])
            axes.errorbar(mean, level, xerr=error, fmt="o", markersize=6, color=color, elinewidth=2.2, gid=arm)
    axes.set_yticks(range(len(arms)), list(arms))
    axes.set_ylim(len(arms) - 0.5, -0.5)  # the first group on top
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    return _svg(figure, label, "arms")


def label_curves(
    series: Mapping[str, Sequence[tuple[int, float, float]]], label: str, colors: Mapping[str, str], width: int = 320
) -> str:
    """Return a metric over the number of labels, on a logarithmic axis, one line for each arm.

    Args:
        series: by arm, (number of labels, mean, standard deviation).
        label: the text that replaces the chart for screen readers.
        colors: by arm, names of CSS variables of the page without their dashes.
    """
    figure, axes = _figure(width, 190)
    draw_curves(axes, series, {arm: _COLOR_OF.get(colors.get(arm, "soft"), _COLOR_OF["soft"]) for arm in series})
    return _svg(figure, label, "label-curves")


def bars(shares: Mapping[str, float], label: str, width: int = 320) -> str:
    """Return shares from 0 to 1 as horizontal bars, one row each, with their percentages.

    Args:
        shares: by name; "" is returned if there are none.
        label: the text that replaces the chart for screen readers.
        width: in points.
    """
    if not shares:
        return ""
    figure, axes = _figure(width, 14 + 19 * len(shares))
    for row, (name, share) in enumerate(shares.items()):
        axes.barh(row, 1, height=0.55, color=_COLOR_OF["rule-strong"], alpha=0.35)
        axes.barh(row, share, height=0.55, color=_COLOR_OF["c1"], gid=name.replace(" ", "-"))
        axes.text(1.02, row, f"{100 * share:.1f} %", va="center", color=_COLOR_OF["soft"])  # black is unreadable on dark
    axes.set_yticks(range(len(shares)), list(shares))
    axes.set_ylim(len(shares) - 0.5, -0.5)  # the first on top
    axes.set_xlim(0, 1.16)
    axes.set_xticks([])
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    return _svg(figure, label, "bars")


def curves(series: Mapping[str, Sequence[Point]], label: str, width: int = 230, height: int = 120) -> str:
    """Return lines over steps; the first two series have the colors `--c0` and `--c1` of the page.

    Args:
        series: by name, (step, value) points.
        label: the text that replaces the chart for screen readers.
        width, height: in points.
    """
    if not any(series.values()):
        return ""
    figure, axes = _figure(width, height)
    for index, (name, points) in enumerate(series.items()):
        steps, values = zip(*points, strict=True)
        marker = "o" if len(points) == 1 else ""
        axes.plot(steps, values, color=_COLOR_OF[f"c{index % 2}"], linewidth=1.3, marker=marker, gid=name)
    axes.locator_params(nbins=4)
    axes.set_xlabel("step")
    return _svg(figure, label, "curves")


def _figure(width: float, height: float) -> tuple[Figure, Any]:
    """Return a figure of some points with one pair of axes; it is no pyplot figure, so nothing global keeps it."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(width / POINTS_PER_INCH, height / POINTS_PER_INCH), layout=None)
        return figure, figure.add_subplot()


def _svg(figure: Figure, label: str, kind: str) -> str:
    """Return a figure as an SVG element for the page."""
    buffer = io.StringIO()
    with matplotlib.rc_context(SETTINGS):
        tight = {} if kind == "strip" else {"bbox_inches": "tight", "pad_inches": 0.03}
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}, **tight)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)  # would apply to the whole page
    # Ids must be unique on the page. Those that the chart refers to stay: equal ids have equal content. Others become classes.
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in used else f' class="{match[1]}"', text)
    for color, variable in COLORS.items():
        text = text.replace(color, f"var({variable})")
    head = f'<svg class="{kind}" role="img" aria-label="{escape(label, quote=True)}" '
    return head + text.removeprefix("<svg ").strip()
