"""The report: one HTML page that needs no other file and no network; readable on light and dark, on paper and by ear."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from fourfold.data.ingestion.drops import SHOWN_REASONS, losses
from fourfold.evaluation.error_maps import SCALES
from fourfold.evaluation.report import charts
from fourfold.evaluation.report.decoders import DecoderRow, decoder_metrics, without_decoders
from fourfold.evaluation.report.definitions import (
    Definitions,
    component_metric,
    format_number,
    label_title,
    main_metric,
    pair_title,
)
from fourfold.evaluation.report.gallery import Gallery
from fourfold.evaluation.report.stages import stage_cards
from fourfold.evaluation.report.transfer_tables import arm_colors, examples_by_title, transfer_tables
from fourfold.evaluation.tasks import pair_metrics
from fourfold.html import templates
from fourfold.images import data_url
from fourfold.metrics.label_efficiency import arm_titles
from fourfold.metrics.metric import Metric, find_metric
from fourfold.modalities import label

DROPPED = {  # why labelers' results were left out, in words, see `fourfold.labelers.integration`
    "dropped_score": "low score",
    "dropped_shape": "empty or outside the image",
    "dropped_class": "the segmentation has another class there",
}
MARK = "<!-- the record of the run -->"  # in the page, where a copy of it can say which run it belongs to


@dataclass(frozen=True)
class ReportData:
    """Everything that the report shows; sections without data are left out."""

    metrics: Mapping[str, Any] = field(default_factory=dict)  # content of metrics.json
    sections: Mapping[str, str] = field(default_factory=dict)  # of `render_images`: HTML of "gallery" and "decoders"
    transfer_tasks: Mapping[str, Any] = field(default_factory=dict)  # of `finetune`: {"vqa": {"title", "metrics"}}
    examples: Sequence[Mapping[str, Any]] = ()  # of `finetune`: questions and captions with the answers of each arm
    history: Sequence[Mapping[str, float]] = ()  # of pretraining: {"step", "loss", "validation/<modality>", ...}
    # of teachers and tokenizers: {"Tokenizers": {"rgb": rows as in `history`}}
    component_histories: Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]] = field(default_factory=dict)
    left_out: Sequence[str] = ()  # sentences about results of other models
    ingestion: Mapping[str, Any] = field(default_factory=dict)  # of `ingestion_report`: what was kept and left out
    skipped: Sequence[str] = ()  # sentences about what was not computed and why
    labels: Mapping[str, Any] = field(default_factory=dict)  # of `integrate_labels`: counts by split
    worst: Mapping[str, Any] = field(default_factory=dict)  # of `WorstCases`, by pair
    notice: str = ""  # shown above everything else
    facts: Mapping[str, str] = field(default_factory=dict)  # for the head of the page, e.g. {"Parameters": "2.9 M"}


def write_report(data: ReportData) -> str:
    """Return the page as HTML text; equal data give equal text."""
    metrics, tokenizers = data.metrics, data.metrics.get("tokenizers", {})
    return (
        report_templates()
        .get_template("report.html.jinja")
        .render(
            facts=data.facts,
            left_out=data.left_out,
            reference=metrics.get("reference", "exact truth"),
            num_samples=metrics.get("samples"),
            headline=_headline(metrics.get("out_of_the_box", {})),
            predictions=[
                _prediction(pair, entries) | {"reference": metrics.get("references", {}).get(pair, "")}
                for pair, entries in metrics.get("out_of_the_box", {}).items()
            ],
            skipped=data.skipped,
            benchmarks=_benchmarks(metrics.get("benchmarks", {})),
            arm_titles=(arms := arm_titles(metrics.get("transfer", {}))),
            arm_colors=arm_colors(arms),
            tasks=transfer_tables(metrics.get("transfer", {}), data.transfer_tasks),
            examples=examples_by_title(data.examples, data.transfer_tasks),
            sections={name: Markup(data.sections.get(name, "")) for name in ("gallery", "decoders")},  # noqa: S704  of render_images
            components=[
                (title, _component_rows(values))
                for title, values in (("Teachers", metrics.get("teachers")), ("Tokenizers", without_decoders(tokenizers)))
                if values
            ],
            codebooks=_codebook_chart(tokenizers),
            decoder_rows=[_decoder_row(row) for row in decoder_metrics(tokenizers)],
            panels=_panels(data.history),
            component_panels={title: _component_panels(found) for title, found in data.component_histories.items() if found},
            cross_entropy=component_metric("", "cross_entropy"),
            ingested=_ingested(data.ingestion),
            dropped_labels=_dropped_labels(data.labels),
            stages=stage_cards(metrics, data.ingestion, data.labels, data.transfer_tasks),
            worst=[_worst(pair, found) for pair, found in data.worst.items()],
            notice=data.notice,
            mark=Markup(MARK),  # noqa: S704  a constant
            definitions=Definitions(),
        )
    )


def render_images(gallery: Gallery, decoders: Sequence[DecoderRow] = ()) -> dict[str, str]:
    """Return the sections of the report that contain images, as HTML; "" for one without images.

    They are rendered on their own so that they can be stored: the model is needed for them, and for nothing else on the page.

    Args:
        gallery: of `collect_gallery`.
        decoders: of `collect_decoders`.
    """
    environment = report_templates()
    shown = {
        "gallery": _gallery(gallery) if gallery.rows else None,
        "decoders": {"decoders": decoders} if decoders else None,
    }
    return {
        name: environment.get_template(f"{name}.html.jinja").render(values) if values else "" for name, values in shown.items()
    }


def _gallery(gallery: Gallery) -> dict[str, Any]:
    kinds = {label(name).kind for name in gallery.columns}
    return {"gallery": gallery, "class_colors": _class_colors(gallery), "kinds": kinds}


def report_templates() -> Environment:
    """Return the templates of this folder, with what they call."""
    environment = templates(Path(__file__).parent)
    environment.globals.update(data_url=data_url, number=format_number, error_scales=SCALES)
    return environment


def _prediction(pair: str, entries: Mapping[str, Any], metrics: Sequence[Metric] | None = None) -> dict[str, Any]:
    """Return one group of the table: a row with a chart per metric."""
    rows = []
    for key, entry in entries.items():
        metric = find_metric(pair_metrics(pair) if metrics is None else metrics, key)
        marks = {column: entry.get(column) for column in ("value", "teacher", "trivial", "shuffled")}
        shown = ", ".join(f"{column} {format_number(mark)}" for column, mark in marks.items() if mark is not None)
        strip = charts.strip(marks, entry.get("ci95"), metric.lower_is_better, f"{metric.title}: {shown}")
        rows.append({"metric": metric, **entry, "strip": Markup(strip)})  # noqa: S704  escaped by charts
    return {"title": pair_title(pair), "rows": rows}


def _headline(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a card for the main metric of every prediction task that is a headline."""
    return [
        {
            "title": pair_title(pair),
            "metric": find_metric(pair_metrics(pair), key),
            **entry,
            "is_worse": _is_worse(pair, key, entry),
        }
        for pair, entries in table.items()
        for key, entry in entries.items()
        if main_metric(pair, key)
    ]


def _is_worse(pair: str, key: str, entry: Mapping[str, Any]) -> bool:
    """Return whether the model is not better than the trivial answer."""
    value, trivial = entry["value"], entry["trivial"]
    if value is None or trivial is None:
        return False
    return bool(value >= trivial if find_metric(pair_metrics(pair), key).lower_is_better else value <= trivial)


def _benchmarks(benchmarks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a group of the table for each pair of each benchmark."""
    return [
        _prediction(pair, entries, _benchmark_metrics(result))
        | {"reference": "", "title": f"{name} ({result['title']}): {pair_title(pair)}"}
        for name, result in benchmarks.items()
        for pair, entries in result["table"].items()
    ]


def _benchmark_metrics(result: Mapping[str, Any]) -> list[Metric]:
    return [Metric(**metric) for metric in result["metrics"]]


def _class_colors(gallery: Gallery) -> dict[str, tuple[int, ...]]:
    table = gallery.class_table
    return {} if table is None else {name: tuple(table.palette[i].tolist()) for i, name in enumerate(table.names)}


def _component_rows(values: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row for each metric of a teacher or tokenizer, e.g. of `{"depth/abs_rel": 0.02}`."""
    rows = []
    for name, value in values.items():
        label, _, key = name.rpartition("/")
        rows.append({"label": label_title(label), "metric": component_metric(label, key), "value": value})
    return rows


def _codebook_chart(tokenizers: Mapping[str, float]) -> Markup:
    ending = "/codebook_use"
    shares = {label_title(name.removesuffix(ending)): use for name, use in tokenizers.items() if name.endswith(ending)}
    spoken = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    return Markup(charts.bars(shares, f"Share of the codes that are used: {spoken}"))  # noqa: S704  escaped by charts


def _dropped_labels(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return how many labels were left out, by reason, over all splits; labels that nothing was left out of have no row."""
    totals: dict[str, int] = {}
    for counts in report.values():
        for name, count in counts.items():
            if isinstance(count, int):
                totals[name] = totals.get(name, 0) + count
    rows = []
    for name, count in totals.items():
        group, _, reason = name.partition("/")
        if count and (reason.startswith("dropped_") or reason == "disagree"):
            total = totals.get(f"{group}/kept", 0) + sum(n for key, n in totals.items() if key.startswith(f"{group}/dropped_"))
            why = DROPPED.get(reason, reason.removeprefix("dropped_").replace("_", " "))
            rows.append({"group": group, "reason": why, "count": count, "of": total or totals.get("samples", 0)})
    samples = totals.get("samples", 0)
    rows += [
        {"group": modality, "reason": f"missing: {reason}", "count": count, "of": samples}
        for (modality, reason), count in _missing_labels(report).items()
    ]
    return sorted(rows, key=lambda row: -row["count"])


def _missing_labels(report: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """Return how many labels are missing over all splits, by modality and reason."""
    found: dict[tuple[str, str], int] = {}
    for counts in report.values():
        for modality, reasons in counts.get("missing", {}).items():
            for reason, one in reasons.items():
                found[modality, reason] = found.get((modality, reason), 0) + one["count"]
    return found


def _worst(pair: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the worst samples of a pair with their metric; `hidden` is the number of samples that are as bad as the last."""
    cases = found["cases"]
    shown = sum(case["score"] == cases[-1]["score"] for case in cases)
    metric = find_metric(pair_metrics(pair), found["metric"])
    return {"title": pair_title(pair), "metric": metric, "cases": cases, "hidden": found["as_bad_as_the_last"] - shown}


def _decoder_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "label": label_title(row["label"]), "metric": component_metric(row["label"], row["metric"])}


def _panels(history: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return a chart of the loss in training and validation, and one for each modality."""

    def points(name: str) -> list[charts.Point]:
        return [(row["step"], row[name]) for row in history if name in row]

    names = dict.fromkeys(
        name for row in history for name in row if name.startswith("validation/") and name != "validation/loss"
    )
    panels = {"All modalities": {"training": points("loss"), "validation": points("validation/loss")}}
    for name in names:
        modality = name.removeprefix("validation/")
        panels[label_title(modality)] = {"training": points(modality), "validation": points(name)}
    drawn = [(title, {k: v for k, v in series.items() if v}) for title, series in panels.items()]
    return [
        {"title": title, "series": list(series), "chart": Markup(charts.curves(series, f"Loss over steps: {title}"))}  # noqa: S704
        for title, series in drawn
        if series
    ]


def _component_panels(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Return a chart of the training loss of each network."""
    found = {name: [(row["step"], row["loss"]) for row in rows if "loss" in row] for name, rows in histories.items()}
    return [
        {
            "title": name,
            "series": ["training"],
            "chart": Markup(charts.curves({"training": points}, f"Training loss over steps: {name}")),  # noqa: S704
        }
        for name, points in found.items()
        if points
    ]


def _ingested(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the samples by split and the most frequent reasons why data were left out."""
    if not report:
        return None
    lost, kept = losses(report), report["kept"]
    more = max(0, len(lost) - SHOWN_REASONS)
    return {"seen": report["seen"], "kept": sum(kept.values()), "splits": kept, "losses": lost[:SHOWN_REASONS], "more": more}
