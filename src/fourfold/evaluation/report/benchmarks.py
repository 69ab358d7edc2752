"""The report of official benchmarks: our numbers beside published ones, details, and the worst examples."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from fourfold.evaluation.report.page import format_number, report_templates
from fourfold.images import data_url
from fourfold.metrics.metric import Metric, find_metric

SHOWN_WIDTH = 220  # pixels of an image in the gallery


def benchmark_page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the report as one HTML page that needs no other file; equal results give equal text.

    Args:
        results: of `score_official`, by the names of the configuration.
    """
    sections = [_section(name, result) for name, result in results.items()]
    return report_templates().get_template("benchmarks.html.jinja").render(sections=sections)


def _section(name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    failures = [{**entry, "shown": [_shown(*pair) for pair in entry["shown"]]} for entry in result["failures"]]
    columns, rows = comparison(result)
    tables = {key.replace("_", " "): values for key, values in result["details"].items() if isinstance(values, dict) and values}
    lists = {key.replace("_", " "): ", ".join(v) for key, v in result["details"].items() if isinstance(v, list) and v}
    facts = {key.replace("_", " "): v for key, v in result["details"].items() if isinstance(v, str | int)}
    content = {"columns": columns, "rows": rows, "failures": failures, "tables": tables, "facts": facts | lists}
    return {"name": name, "result": result, "notes": notes(result), **content}


def comparison(result: Mapping[str, Any]) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """Return the published models, and a row for each metric with our value and theirs."""
    columns = list(
        {(p["model"], p["source"]): {"model": p["model"], "source": p["source"]} for p in result["published"]}.values()
    )
    published = {(p["model"], p["metric"]): p["value"] for p in result["published"]}
    metrics = [Metric(**metric) for metric in result["metrics"]]
    known = [metric.name for metric in metrics]
    names = sorted(result["scores"], key=lambda name: known.index(name) if name in known else len(known))
    rows = [
        {
            "metric": find_metric(metrics, name),
            **result["scores"][name],
            "published": [published.get((column["model"], name)) for column in columns],
        }
        for name in names
    ]
    return columns, rows


def notes(result: Mapping[str, Any]) -> list[str]:
    """Return what a reader must know before comparing."""
    found = [f"Protocol: {result['protocol']}. The model sees the image as: {result['view']}."]
    if result["complete"] is False:
        found.append(f"Only {result['samples']:,} samples, not the whole split: the numbers are not comparable.")
    if result["without_truth"]:
        found.append(f"{result['without_truth']:,} samples without anything to compare.")
    metrics = [Metric(**metric) for metric in result["metrics"]]
    found += [f"{find_metric(metrics, name).title} is left out: {why}" for name, why in result.get("left_out", {}).items()]
    if result["published"]:
        found.append("Published numbers are those of their sources, whose protocols may differ.")
    return found


def text_table(result: Mapping[str, Any]) -> str:
    """Return our numbers beside published ones as lines of text."""
    columns, rows = comparison(result)
    lines = [f"{result['title']}, {result['split']}, {result['samples']:,} samples. {' '.join(notes(result))}"]
    for row in rows:
        interval = "" if row["ci95"] is None else f" ({format_number(row['ci95'][0])} to {format_number(row['ci95'][1])})"
        others = [
            f"{column['model']} {format_number(value)} [{column['source']}]"
            for column, value in zip(columns, row["published"], strict=True)
            if value is not None
        ]
        arrow = "↓" if row["metric"].lower_is_better else "↑"
        lines.append(
            f"  {row['metric'].title} {arrow} {format_number(row['value'])}{interval}" + "".join(f"; {o}" for o in others)
        )
    return "\n".join(lines)


def _shown(title: str, value: np.ndarray | str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"title": title, "text": value, "url": None}
    image = Image.fromarray(value)
    height = max(1, round(image.height * SHOWN_WIDTH / image.width))
    return {"title": title, "text": None, "url": data_url(np.asarray(image.resize((SHOWN_WIDTH, height))))}
