"""Fine-tuning in the report: a chart and a table for each task, and answers as examples."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from fourfold.evaluation.report import charts
from fourfold.metrics.label_efficiency import ARM_TITLES, MIN_POINTS, arm_titles, curves_of, describe, equal_quality
from fourfold.metrics.metric import Metric, find_metric

OTHER_COLORS = ("student", "teacher", "c0", "c1", "trivial", "shuffled")  # of arms with other names, in their order


def arm_colors(arms: Iterable[str]) -> dict[str, str]:
    """Return the color of each arm, as the name of a CSS variable of the page without its dashes."""
    others = [arm for arm in arms if arm not in ARM_TITLES]
    own = {arm: OTHER_COLORS[index % len(OTHER_COLORS)] for index, arm in enumerate(others)}
    return {arm: own.get(arm, arm) for arm in arms}


def transfer_tables(transfer: Mapping[str, Any], described: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Gather `vqa_200`, `vqa_500`, ... into one entry per task: a chart of its main metric, a table of all metrics."""
    grouped: dict[str, dict[int, Any]] = {}
    for name, by_metric in transfer.items():
        task, _, count = name.rpartition("_")
        grouped.setdefault(task, {})[int(count)] = by_metric
    entries, colors = [], arm_colors(arm_titles(transfer))
    for task, by_count in grouped.items():
        metrics = [Metric(**metric) for metric in described.get(task, {}).get("metrics", [])]
        main = metrics[0] if metrics else find_metric([], next(iter(by_count[min(by_count)])))
        arms = {f"{count} labels": _arm_points(by_count[count][main.name]) for count in sorted(by_count)}
        title = described.get(task, {}).get("title", task)
        label = f"{title}, {main.title}: " + "; ".join(
            f"{group}: " + ", ".join(f"{ARM_TITLES.get(arm, arm)} {mean:.3f}" for arm, mean, _ in points)
            for group, points in arms.items()
        )
        rows = [
            {"labels": count, "metric": find_metric(metrics, key), "arms": by_arm}
            for count in sorted(by_count)
            for key, by_arm in by_count[count].items()
        ]
        curves, sentences = curves_of(transfer, task, main.name), list[str]()
        svg = charts.arms_chart(arms, label, colors)
        if len(by_count) >= MIN_POINTS:
            svg = charts.label_curves(curves, label, colors)
            start = next(iter(curves))
            sentences = [describe(equal, ARM_TITLES) for equal in equal_quality(curves, main, start)]
        chart = Markup(svg)  # noqa: S704  escaped by charts
        entries.append({"name": task, "title": title, "metric": main, "chart": chart, "rows": rows, "sentences": sentences})
    return entries


def _arm_points(arms: Mapping[str, Mapping[str, float]]) -> list[tuple[str, float, float]]:
    """Return (arm, mean, standard error)."""
    return [(arm, summary["mean"], summary["std"] / max(summary["n"], 1) ** 0.5) for arm, summary in arms.items()]


def examples_by_title(
    examples: Sequence[Mapping[str, Any]], described: Mapping[str, Any]
) -> dict[str, list[Mapping[str, Any]]]:
    """Return the examples of answers by the title of their task."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for example in examples:
        grouped.setdefault(described.get(example["task"], {}).get("title", example["task"]), []).append(example)
    return grouped
