"""The report: one HTML page that needs no other file and no network; readable on light and dark, on paper and by ear."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fourfold.evaluation.report import charts
from fourfold.evaluation.report.decoders import DecoderRow, decoder_metrics, without_decoders
from fourfold.evaluation.report.gallery import Gallery
from fourfold.evaluation.tasks import PREDICTION_TASKS, pair_metrics
from fourfold.images import data_url
from fourfold.metrics.metric import Metric, find_metric

LABEL_TITLES = {
    "rgb": "RGB", "normal": "normals", "semseg": "segmentation", "det": "boxes", "clip": "CLIP features",
    "clip_global": "CLIP embedding", "canny_edge": "edges", "color_palette": "color palette",
}  # fmt: skip
TOKENIZER_METRICS = (Metric("psnr", "PSNR", "decibels between pixels"),)
ARM_TITLES = {"pretrained": "pretrained", "scratch": "from scratch", "baseline": "small CNN"}


@dataclass(frozen=True)
class ReportData:
    """Everything that the report shows; sections without data are left out."""

    metrics: Mapping[str, Any] = field(default_factory=dict)  # content of metrics.json
    sections: Mapping[str, str] = field(default_factory=dict)  # of `render_images`: HTML of "gallery" and "decoders"
    transfer_tasks: Mapping[str, Any] = field(default_factory=dict)  # of `finetune`: {"vqa": {"title", "metrics"}}
    examples: Sequence[Mapping[str, Any]] = ()  # of `finetune`: questions and captions with the answers of each arm
    history: Sequence[Mapping[str, float]] = ()  # of pretraining: {"step", "loss", "validation/<modality>", ...}
    facts: Mapping[str, str] = field(default_factory=dict)  # for the head of the page, e.g. {"Parameters": "2.9 M"}


def write_report(data: ReportData) -> str:
    """Return the page as HTML text; equal data give equal text."""
    metrics, tokenizers = data.metrics, data.metrics.get("tokenizers", {})
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            facts=data.facts,
            reference=metrics.get("reference", "exact truth"),
            num_samples=metrics.get("samples"),
            headline=_headline(metrics.get("out_of_the_box", {})),
            predictions=[_prediction(pair, entries) for pair, entries in metrics.get("out_of_the_box", {}).items()],
            benchmarks=_benchmarks(metrics.get("benchmarks", {})),
            tasks=_transfer_tasks(metrics.get("transfer", {}), data.transfer_tasks),
            examples=_examples_by_title(data.examples, data.transfer_tasks),
            sections={name: Markup(data.sections.get(name, "")) for name in ("gallery", "decoders")},  # noqa: S704  of render_images
            plain=[
                (title, values)
                for title, values in (("Teachers", metrics.get("teachers")), ("Tokenizers", without_decoders(tokenizers)))
                if values
            ],
            decoder_rows=[_decoder_row(row) for row in decoder_metrics(tokenizers)],
            panels=_panels(data.history),
            seconds=_seconds(metrics.get("seconds", {})),
        )
    )


def render_images(gallery: Gallery, decoders: Sequence[DecoderRow] = ()) -> dict[str, str]:
    """Return the sections of the report that contain images, as HTML; "" for one without images.

    They are rendered on their own so that they can be stored: the model is needed for them, and for nothing else on the page.

    Args:
        gallery: of `collect_gallery`.
        decoders: of `collect_decoders`.
    """
    environment = _environment()
    shown = {
        "gallery": {"gallery": gallery, "class_colors": _class_colors(gallery)} if gallery.rows else None,
        "decoders": {"decoders": decoders} if decoders else None,
    }
    return {
        name: environment.get_template(f"{name}.html.jinja").render(values) if values else "" for name, values in shown.items()
    }


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(data_url=data_url, arm_titles=ARM_TITLES, number=format_number)
    return environment


def label_title(label: str) -> str:
    """Return a label's name in the report, e.g. "RGB" for `rgb`."""
    return LABEL_TITLES.get(label, label.replace("_", " "))


def _pair_title(pair: str) -> str:
    source, _, target = pair.partition("->")
    return f"{label_title(source)} → {label_title(target)}"


def _prediction(pair: str, entries: Mapping[str, Any], metrics: Sequence[Metric] | None = None) -> dict[str, Any]:
    """Return one group of the table: a row with a chart per metric."""
    rows = []
    for key, entry in entries.items():
        metric = find_metric(pair_metrics(pair) if metrics is None else metrics, key)
        marks = {column: entry.get(column) for column in ("value", "teacher", "trivial", "shuffled")}
        shown = ", ".join(f"{column} {format_number(mark)}" for column, mark in marks.items() if mark is not None)
        strip = charts.strip(marks, entry.get("ci95"), metric.lower_is_better, f"{metric.title}: {shown}")
        rows.append({"metric": metric, **entry, "strip": Markup(strip)})  # noqa: S704  escaped by charts
    return {"title": _pair_title(pair), "rows": rows}


def _headline(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a card for the main metric of every prediction task that is a headline."""
    cards = []
    for pair, entries in table.items():
        mains = [task.metrics[0] for _, task in PREDICTION_TASKS.items() if task.pair == pair and task.headline]
        for key, entry in entries.items():
            if any(main.describes(key) for main in mains):
                role = "teacher" if entry["teacher"] is not None else "trivial"
                values = {"value": entry["value"], "role": role, "beside": entry[role]}
                cards.append({"title": _pair_title(pair), "metric": find_metric(mains, key).title, **values})
    return cards


def _benchmarks(benchmarks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a group of the table for each pair of each benchmark."""
    return [
        _prediction(pair, entries, _benchmark_metrics(result)) | {"title": f"{name} ({result['title']}): {_pair_title(pair)}"}
        for name, result in benchmarks.items()
        for pair, entries in result["table"].items()
    ]


def _benchmark_metrics(result: Mapping[str, Any]) -> list[Metric]:
    return [Metric(**metric) for metric in result["metrics"]]


def _transfer_tasks(transfer: Mapping[str, Any], described: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Gather `vqa_200`, `vqa_500`, ... into one entry per task: a chart of its main metric, a table of all metrics."""
    grouped: dict[str, dict[int, Any]] = {}
    for name, by_metric in transfer.items():
        task, _, count = name.rpartition("_")
        grouped.setdefault(task, {})[int(count)] = by_metric
    entries = []
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
        chart = Markup(charts.arms_chart(arms, label))  # noqa: S704  escaped by charts
        entries.append({"name": task, "title": title, "metric": main, "chart": chart, "rows": rows})
    return entries


def _arm_points(arms: Mapping[str, Mapping[str, float]]) -> list[tuple[str, float, float]]:
    """Return (arm, mean, standard error)."""
    return [(arm, summary["mean"], summary["std"] / max(summary["n"], 1) ** 0.5) for arm, summary in arms.items()]


def _examples_by_title(
    examples: Sequence[Mapping[str, Any]], described: Mapping[str, Any]
) -> dict[str, list[Mapping[str, Any]]]:
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for example in examples:
        grouped.setdefault(described.get(example["task"], {}).get("title", example["task"]), []).append(example)
    return grouped


def _class_colors(gallery: Gallery) -> dict[str, tuple[int, ...]]:
    table = gallery.class_table
    return {} if table is None else {name: tuple(table.palette[i].tolist()) for i, name in enumerate(table.names)}


def _decoder_row(row: Mapping[str, Any]) -> dict[str, Any]:
    metric = find_metric([*TOKENIZER_METRICS, *pair_metrics(f"rgb->{row['label']}")], row["metric"])
    return {**row, "label": label_title(row["label"]), "metric": metric}


def _panels(history: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return a chart of the loss (training and validation) and one of each modality's validation loss."""

    def points(name: str) -> list[charts.Point]:
        return [(row["step"], row[name]) for row in history if name in row]

    names = dict.fromkeys(
        name for row in history for name in row if name.startswith("validation/") and name != "validation/loss"
    )
    panels = {"All modalities": {"training": points("loss"), "validation": points("validation/loss")}}
    panels |= {name.removeprefix("validation/"): {"validation": points(name)} for name in names}
    drawn = [(title, {k: v for k, v in series.items() if v}) for title, series in panels.items()]
    return [
        {"title": title, "series": list(series), "chart": Markup(charts.curves(series, f"Loss over steps: {title}"))}  # noqa: S704
        for title, series in drawn
        if series
    ]


def _seconds(seconds: Mapping[str, float]) -> dict[str, Any] | None:
    if not seconds:
        return None
    label = "Seconds per stage: " + ", ".join(f"{stage} {value:.0f}" for stage, value in seconds.items())
    return {"total": sum(seconds.values()), "chart": Markup(charts.bars(seconds, label))}  # noqa: S704  escaped by charts


def format_number(value: float | int | None) -> str:
    """Return a number with its significant digits; a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 2 else f"{value:.3f}"
