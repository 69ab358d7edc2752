"""The table of the comparison: quality, size, training and latency of every row, as values, Markdown and HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from fourfold.evaluation.report.definitions import format_number
from fourfold.html import templates
from fourfold.images import png_url
from fourfold.metrics.metric import Metric
from fourfold.specialists.costs import ALL

NOTHING = "–"
MEGA = 2**20
BYTES = 4  # of a parameter


@dataclass(frozen=True)
class Column:
    """A column of the table: its heading, and what it means."""

    title: str
    meaning: str


def comparison(metrics: Mapping[str, Any], costs: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that the table shows, as JSON values.

    Args:
        metrics: of `score_contestants`.
        costs: of `measure_costs`.

    Returns:
        `columns` (title and meaning), `rows` (title, kind and a text for each column), `notes`, and `values`: the numbers
        behind the texts, by row.
    """
    main = {pair: Metric(**found[0]) for pair, found in metrics["metrics"].items()}
    values = {name: _values(name, row, main, costs) for name, row in metrics["rows"].items()}
    columns = _columns(main)
    rows = [
        {"name": name, "title": row["title"], "kind": row["kind"], "cells": _cells(values[name], main)}
        for name, row in ((name, metrics["rows"][name]) for name in metrics["order"])
    ]
    return {
        "columns": [vars(column) for column in columns],
        "rows": rows,
        "notes": notes(metrics, costs),
        "values": values,
    }


def notes(metrics: Mapping[str, Any], costs: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know before comparing, as sentences."""
    machine = costs["machine"]
    found = [
        f"Quality: {metrics['samples']:,} test samples against {metrics['reference']}; all rows learned from the same images "
        "and labels. In brackets: 95 % bootstrap interval over the samples, or ± the deviation over seeds.",
        "Networks: separately trained sets of weights that the row needs for its tasks. A specialist has one; 4M has its "
        "transformer and a tokenizer for each dense label, but it also answers tasks that no row here is about.",
        "Training: seconds of one core, measured in this run: a specialist's while it trains, 4M's by some steps of "
        "pretraining; the time of its tokenizers is scaled from the record of its run. Memory: how far it rises in a training.",
        f"Latency: median of interleaved predictions of one image in one process; {machine['device']}, "
        f"{machine['num_threads']} threads, {machine['instruction_set']}.",
        "Code: lines without blank lines, comments and docstrings of the modules of this project that only such models "
        "need; data, metrics, the training loop and libraries are left out.",
    ]
    for pair, what in metrics["references"].items():
        found.append(f"{pair}: {what}.")
    return found


def logged(metrics: Mapping[str, Any], costs: Mapping[str, Any]) -> dict[str, float]:
    """Return scores, sizes, latencies and costs of trainings by `row/...`, for the log of the run."""
    found: dict[str, float] = {}
    for name, row in metrics["rows"].items():
        found |= {f"{name}/{pair}/{key}": entry["value"] for pair, e in row["scores"].items() for key, entry in e.items()}
        found |= {f"{name}/{key}": float(size) for key, size in row["size"].items() if size is not None}
    for name, latencies in costs["latency"].items():
        found |= {f"{name}/latency_ms/{label}": value for label, value in latencies.items()}
    for name, runs in costs["training"].items():
        for index, run in enumerate(runs):
            found |= {f"{name}/seed{index}/{key}": float(value) for key, value in run.items() if value is not None}
    return {name.replace("->", "_to_"): value for name, value in found.items()}


def as_markdown(table: Mapping[str, Any]) -> str:
    """Return the table as Markdown, with its notes below."""
    titles = ["", *(column["title"] for column in table["columns"])]
    lines = ["# One generalist against specialists", "", _line(titles), _line(["---"] * len(titles))]
    lines += [_line([row["title"], *row["cells"]]) for row in table["rows"]]
    return "\n".join([*lines, "", *(f"- {note}" for note in table["notes"]), ""])


def as_html(table: Mapping[str, Any], chart: bytes, gallery: bytes) -> str:
    """Return the table, the chart and the gallery as one page that needs no other file.

    Args:
        table: of `comparison`.
        chart, gallery: PNG files.
    """
    template = templates(Path(__file__).parent).get_template("comparison.html.jinja")
    return template.render(table=table, chart=png_url(chart), gallery=png_url(gallery))


def _values(name: str, row: Mapping[str, Any], main: Mapping[str, Metric], costs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of a row; None for what there is not."""
    latency, size = costs["latency"].get(name, {}), row["size"]
    labels = [pair.partition("->")[2] for pair in main]
    parameters = size.get("parameters")
    return {
        "quality": {pair: row["scores"].get(pair, {}).get(metric.name) for pair, metric in main.items()},
        "networks": size.get("networks"),
        "parameters": parameters,
        "weights_megabytes": None if parameters is None else round(parameters * BYTES / MEGA, 2),
        **_training(row, costs),
        "latency_ms": {label: latency.get(label) for label in labels},
        "latency_all_ms": latency.get(ALL),
        "code_modules": size.get("code_modules"),
        "code_lines": size.get("code_lines"),
    }


def _training(row: Mapping[str, Any], costs: Mapping[str, Any]) -> dict[str, float | None]:
    """Return `training_seconds` (the sum over the trainings of a row) and `training_megabytes` (their maximum)."""
    trained_with = row.get("trained_with", ())
    found = [costs["training"].get(name, []) for name in trained_with]
    if not found or not all(found):
        return {"training_seconds": None, "training_megabytes": None}
    each = [[run["seconds"] for run in runs if run["seconds"] is not None] for runs in found]
    seconds = sum(fmean(times) for times in each) if all(each) else None
    return {"training_seconds": seconds, "training_megabytes": max(run["peak_megabytes"] for runs in found for run in runs)}


def _columns(main: Mapping[str, Metric]) -> list[Column]:
    quality = [
        Column(f"{metric.title} {'↓' if metric.lower_is_better else '↑'}", f"{pair}: {metric.description}")
        for pair, metric in main.items()
    ]
    latency = [Column(f"{label}, ms", f"latency of {label} for one image") for label in _labels(main)]
    return [
        *quality,
        Column("networks", "separately trained networks"),
        Column("parameters", "of all networks"),
        Column("training, core s", "seconds of one core"),
        Column("memory, MB", "rise of the memory in training"),
        *latency,
        Column("all, ms", "latency of all tasks for one image"),
        Column("modules", "of code"),
        Column("lines", "of code"),
    ]


def _cells(values: Mapping[str, Any], main: Mapping[str, Metric]) -> list[str]:
    return [
        *(_quality(values["quality"][pair]) for pair in main),
        _count(values["networks"]),
        _millions(values["parameters"]),
        _rounded(values["training_seconds"]),
        _rounded(values["training_megabytes"]),
        *(_tenths(values["latency_ms"][label]) for label in _labels(main)),
        _tenths(values["latency_all_ms"]),
        _count(values["code_modules"]),
        _count(values["code_lines"]),
    ]


def _labels(main: Mapping[str, Metric]) -> list[str]:
    return [pair.partition("->")[2] for pair in main]


def _quality(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return NOTHING
    if "std" in entry:
        return f"{format_number(entry['value'])} ± {format_number(entry['std'])}"
    interval = entry["ci95"]
    bounds = "" if interval is None else f" ({format_number(interval[0])}–{format_number(interval[1])})"
    return f"{format_number(entry['value'])}{bounds}"


def _count(number: int | None) -> str:
    return NOTHING if number is None else f"{number:,}"


def _millions(number: int | None) -> str:
    if number is None:
        return NOTHING
    return f"{number / 1e6:.2f} M" if number >= 1e5 else f"{number / 1e3:.1f} k"


def _rounded(number: float | None) -> str:
    if number is None:
        return NOTHING
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def _tenths(number: float | None) -> str:
    return NOTHING if number is None else f"{number:,.1f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
