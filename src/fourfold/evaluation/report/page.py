"""The report: one HTML page that needs no other file and no network; readable on light and dark, on paper and by ear."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fourfold.evaluation.evaluate import LOWER_IS_BETTER
from fourfold.evaluation.report import charts
from fourfold.evaluation.report.decoders import DecoderRow, decoder_figures, without_decoders
from fourfold.evaluation.report.gallery import COLUMNS, GalleryRow
from fourfold.evaluation.report.images import CLASS_COLORS, data_url

TEMPLATE = "report.html.jinja"
LABEL_NAMES = {
    "rgb": "RGB", "depth": "depth", "normal": "normals", "semseg": "segmentation", "det": "boxes", "caption": "caption",
    "clip": "CLIP features", "clip_global": "CLIP embedding",
}  # fmt: skip
METRIC_NAMES = {
    "psnr": ("PSNR", "decibels between pixels"),
    "abs_rel": ("AbsRel", "mean relative error of depth, without sky"),
    "delta1": ("δ₁", "share of pixels whose depth is within a factor of 1.25"),
    "mean_angle": ("mean angle", "degrees between normals, without sky"),
    "mean_angle_objects": ("mean angle, objects", "degrees between normals on object pixels"),
    "miou": ("mIoU", "mean over classes of intersection over union"),
    "miou_objects": ("mIoU, objects", "the same over the four shapes"),
    "ap50": ("AP50", "average precision of boxes at IoU 0.5"),
    "exact": ("exact", "captions that name the right (color, shape) pairs, none missing, none too many"),
    "exact_objects": ("exact with size, texture", "captions whose objects are right in every attribute"),
    "pair_f1": ("pair F1", "F1 over (color, shape) pairs"),
    "count": ("count", "captions that name the right number of objects"),
    "verbatim": ("verbatim", "captions that are the truth's word by word"),
    "cosine": ("cosine", "cosine to the teacher's features"),
    "recall_at_1": ("caption R@1", "the picture's caption is the nearest of all"),
    "zero_shot_shape": ("zero-shot shape", "accuracy of the main object's shape, against text embeddings"),
    "zero_shot_color": ("zero-shot color", "accuracy of the main object's color, against text embeddings"),
    "f1": ("edge F1", "F1 of edge pixels, within one pixel"),
    "color_distance": ("color distance", "from a color to the nearest of the true palette and back, levels of 0–255"),
    "same_bin": ("same bin", "metadata whose bin is predicted"),
    "near_bin": ("near bin", "metadata whose bin, or the one next to it, is predicted"),
    "shape_f1": ("shape F1", "F1 of the shapes that are shown, against those in the caption"),
    "accuracy": ("accuracy", "answers that are right"),
    "count_accuracy": ("count", "accuracy of the number of objects"),
    "shape_accuracy": ("shape", "accuracy of the main object's shape"),
    "color_accuracy": ("color", "accuracy of the main object's color"),
    "texture_accuracy": ("texture", "accuracy of the main object's texture"),
    "mean_accuracy": ("mean accuracy", "the mean of the attributes' accuracies"),
}
TASK_NAMES = {"vqa": "Visual questions", "captioning": "Captions of another style", "attributes": "Count and attributes"}
SHOWN_ARROWS = {"rgb->depth": "abs_rel", "rgb->normal": "mean_angle_objects", "rgb->semseg": "miou", "rgb->det": "ap50",
                "rgb->caption": "pair_f1", "caption->rgb": "clip_recall_at_10"}  # fmt: skip
MAIN_METRICS = {"vqa": "accuracy", "captioning": "pair_f1", "attributes": "mean_accuracy"}
ARM_NAMES = {"pretrained": "pretrained", "scratch": "from scratch", "baseline": "small CNN"}


def write_report(
    metrics: Mapping[str, Any],
    gallery: Sequence[GalleryRow] = (),
    examples: Sequence[Mapping[str, Any]] = (),
    history: Sequence[Mapping[str, float]] = (),
    facts: Mapping[str, str] | None = None,
    decoders: Sequence[DecoderRow] = (),
) -> str:
    """Return the page as HTML text; the same figures give the same text.

    Args:
        metrics: what metrics.json holds: `out_of_the_box`, `transfer`, `teachers`, `tokenizers`, `seconds`, `reference`;
            what is missing is left out.
        gallery: of `collect_gallery`.
        examples: of `finetune`: questions and captions with the answers of each arm.
        history: of pretraining: `{"step", "loss", "validation/<modality>", ...}`.
        facts: named facts of the run for the head of the page, e.g. {"Parameters": "2.9 M"}.
        decoders: of `collect_decoders`: pictures of both decoders of a tokenizer, where there are two.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(data_url=data_url, columns=COLUMNS, class_colors=CLASS_COLORS, arm_names=ARM_NAMES)
    table, tokenizers = metrics.get("out_of_the_box", {}), metrics.get("tokenizers", {})
    return environment.get_template(TEMPLATE).render(
        facts=facts or {},
        reference=metrics.get("reference", "exact truth"),
        num_samples=metrics.get("samples"),
        headline=_headline(table),
        arrows=[_arrow(name, figures) for name, figures in table.items()],
        tasks=_tasks(metrics.get("transfer", {})),
        examples=_by_task(examples),
        gallery=list(gallery),
        plain=[
            (title, figures)
            for title, figures in (("Teachers", metrics.get("teachers")), ("Tokenizers", without_decoders(tokenizers)))
            if figures
        ],
        decoders=list(decoders),
        decoder_rows=[
            {**row, "label": LABEL_NAMES.get(row["label"], row["label"]), "name": metric_name(row["metric"])}
            for row in decoder_figures(tokenizers)
        ],
        panels=_panels(history),
        seconds=_seconds(metrics.get("seconds", {})),
        number=_number,
    )


def metric_name(metric: str) -> tuple[str, str]:
    """Return a metric's short name and what it means."""
    if metric.startswith("clip_recall_at_"):
        k = metric.rpartition("_")[2]
        return f"CLIP R@{k}", f"the caption is among the {k} that the CLIP teacher finds nearest to the picture"
    if metric.startswith("image_recall_at_"):
        k = metric.rpartition("_")[2]
        return f"image R@{k}", f"the real image is among the {k} that are nearest to what the model makes of the caption"
    return METRIC_NAMES.get(metric, (metric.replace("_", " "), ""))


def _arrow(name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    source, _, target = name.partition("->")
    rows = []
    for metric, figure in figures.items():
        short, meaning = metric_name(metric)
        lower = metric in LOWER_IS_BETTER
        marks = {column: figure.get(column) for column in ("value", "teacher", "trivial", "shuffled")}
        label = f"{short}: " + ", ".join(f"{column} {_number(mark)}" for column, mark in marks.items() if mark is not None)
        strip = charts.strip(marks, figure.get("ci95"), lower, label)
        rows.append({"name": short, "meaning": meaning, "lower": lower, **figure, "strip": Markup(strip)})  # noqa: S704  escaped there
    return {"source": LABEL_NAMES.get(source, source), "target": LABEL_NAMES.get(target, target), "rows": rows}


def _headline(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    cards = []
    for name, metric in SHOWN_ARROWS.items():
        if figure := table.get(name, {}).get(metric):
            source, _, target = name.partition("->")
            arrow = f"{LABEL_NAMES[source]} → {LABEL_NAMES[target]}"
            beside = figure["teacher"] if figure["teacher"] is not None else figure["trivial"]
            who = "teacher" if figure["teacher"] is not None else "trivial"
            cards.append(
                {"arrow": arrow, "metric": metric_name(metric)[0], "value": figure["value"], "beside": beside, "who": who}
            )
    return cards


def _tasks(transfer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Gather `vqa_200`, `vqa_500`, ... into one entry per task: a chart of its main metric, a table of all."""
    grouped: dict[str, dict[int, Any]] = {}
    for name, figures in transfer.items():
        task, _, count = name.rpartition("_")
        grouped.setdefault(task, {})[int(count)] = figures
    entries = []
    for task, by_count in grouped.items():
        main = MAIN_METRICS.get(task, next(iter(by_count[min(by_count)])))
        arms = {f"{count} labels": _arm_points(by_count[count][main]) for count in sorted(by_count)}
        title = TASK_NAMES.get(task, task)
        label = f"{title}, {metric_name(main)[0]}: " + "; ".join(
            f"{group}: " + ", ".join(f"{ARM_NAMES.get(arm, arm)} {mean:.3f}" for arm, mean, _ in points)
            for group, points in arms.items()
        )
        rows = [
            {"labels": count, "name": metric_name(metric)[0], "meaning": metric_name(metric)[1], "arms": arms_of}
            for count in sorted(by_count)
            for metric, arms_of in by_count[count].items()
        ]
        chart = Markup(charts.arms_chart(arms, label))  # noqa: S704  escaped there
        entries.append({"name": task, "title": title, "metric": metric_name(main), "chart": chart, "rows": rows})
    return entries


def _arm_points(arms: Mapping[str, Mapping[str, float]]) -> list[tuple[str, float, float]]:
    return [(arm, summary["mean"], summary["std"] / max(summary["n"], 1) ** 0.5) for arm, summary in arms.items()]


def _by_task(examples: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the examples by title of their task."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for example in examples:
        found.setdefault(TASK_NAMES.get(example["task"], example["task"]), []).append(example)
    return found


def _panels(history: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Return a chart for the loss (training and validation) and one for each modality's validation loss."""

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
    return {"total": sum(seconds.values()), "chart": Markup(charts.bars(seconds, label))}  # noqa: S704  escaped there


def _number(figure: float | int | None) -> str:
    """Return a figure with as many digits as mean something; a dash for none."""
    if figure is None:
        return "–"
    if isinstance(figure, int):
        return f"{figure:,}"
    size = abs(figure)
    return f"{figure:.1f}" if size >= 10 else f"{figure:.2f}" if size >= 2 else f"{figure:.3f}"
