"""The chart and the gallery of the comparison, as PNG files; equal data give equal bytes."""

# N samples, H height, W width

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox
from PIL import Image, ImageDraw, ImageFont

from fourfold import images
from fourfold.evaluation.samples import Samples
from fourfold.images import Drawing
from fourfold.metrics.metric import Metric
from fourfold.specialists.answering import FINETUNED, SPECIALIST, TOGETHER, Way

STYLES = {  # kind of a row → marker, color
    SPECIALIST: ("o", "#0072b2"),
    TOGETHER: ("s", "#56b4e9"),
    "generalist": ("D", "#d55e00"),
    FINETUNED: ("P", "#cc79a7"),
    "teachers": ("^", "#009e73"),
}
PANEL = (4.2, 3.4)  # inches
DOTS = 110  # per inch
TITLE_PLACES = ((6, 5), (6, -11), (6, 15), (6, -21))  # of the title of a point, in points from it; the first that is free
CELL, GAP, MARGIN, ROW_TITLE = 128, 8, 20, 150  # pixels
SHOWN_SCORE = 0.3  # boxes with a lower score are not drawn
INK, PAPER = (34, 34, 40), (255, 255, 255)


def chart_png(metrics: Mapping[str, Any], table: Mapping[str, Any]) -> bytes:
    """Return a panel for each task: latency to the right on a logarithmic scale, quality upward, better at the upper left."""
    main = {pair: Metric(**found[0]) for pair, found in metrics["metrics"].items()}
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(PANEL[0] * max(1, len(main)), PANEL[1]), dpi=DOTS, layout="constrained")
        for axes, (pair, metric) in zip(np.atleast_1d(figure.subplots(1, max(1, len(main)))), main.items(), strict=False):
            _draw_panel(axes, pair, metric, metrics["rows"], table["values"])
        _separate_titles(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_panel(axes: Any, pair: str, metric: Metric, rows: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    label = pair.partition("->")[2]
    axes.set_title(f"{label}: {metric.title}, {'lower' if metric.lower_is_better else 'higher'} is better")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("latency for one image, ms")
    if metric.lower_is_better:
        axes.invert_yaxis()
    axes.margins(0.25, 0.2)
    for name, row in rows.items():
        entry, latency = values[name]["quality"][pair], values[name]["latency_ms"][label]
        if entry is None or latency is None or row["kind"] == TOGETHER:
            continue
        marker, color = STYLES.get(row["kind"], ("o", "#555555"))
        if entry["ci95"] is not None:
            axes.plot([latency] * 2, entry["ci95"], color=color, linewidth=1)
        axes.plot([latency], [entry["value"]], marker, color=color, markersize=7)
        axes.annotate(row["title"], (latency, entry["value"]), TITLE_PLACES[0], textcoords="offset points", fontsize=8)


def _separate_titles(figure: Figure) -> None:
    """Move the titles of points that would cover an earlier one; the last place is taken if none is free."""
    figure.draw_without_rendering()  # places everything
    for axes in figure.axes:
        taken: list[Bbox] = []
        for title in (text for text in axes.texts if isinstance(text, Annotation)):
            for title.xyann in TITLE_PLACES:
                if not any(title.get_window_extent().overlaps(other) for other in taken):
                    break
            taken.append(title.get_window_extent())


@dataclass(frozen=True)
class GalleryRow:
    """One line of images: a model, or the reference."""

    title: str
    values: Mapping[str, Any]  # by label, of N samples


def gallery_rows(samples: Samples, ways: Sequence[Way]) -> list[GalleryRow]:
    """Return the reference and the predictions of every way that is no combination of others; teachers by their labels."""
    rows = [GalleryRow("truth", samples.truth_only)] if samples.exact else []
    rows.append(GalleryRow("teacher", samples.labels))
    for way in ways:
        if way.kind not in ("teachers", TOGETHER):
            rows.append(GalleryRow(way.title, _shown(way.answer(samples.rgb, way.targets))))
    return rows


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by label without the weak boxes, which count in AP50 but hide an image."""
    found = dict(values)
    if "det" in found:
        found["det"] = [
            {"instances": [one for one in value["instances"] if one.get("score", 1.0) >= SHOWN_SCORE]} for value in found["det"]
        ]
    return found


def gallery_png(samples: Samples, rows: Sequence[GalleryRow], targets: Sequence[str]) -> bytes:
    """Return one block of lines for each label: the images, the reference, then every model that predicts the label.

    Args:
        samples: the N samples that are shown.
        rows: what is shown of them, the reference first.
        targets: the labels.
    """
    lines: list[tuple[str, list[np.ndarray]]] = [("image", list(samples.rgb))]
    drawings = [Drawing(rgb, samples.class_table, None, samples.rgb.shape[1]) for rgb in samples.rgb]
    for target in targets:
        for row in rows:
            if target in row.values:
                shown = [
                    images.draw(target, value, drawing) for value, drawing in zip(row.values[target], drawings, strict=True)
                ]
                lines.append((f"{target}: {row.title}", [image for image in shown if image is not None]))
    width = 2 * MARGIN + ROW_TITLE + len(samples) * (CELL + GAP) - GAP
    canvas = Image.new("RGB", (width, 2 * MARGIN + len(lines) * (CELL + GAP) - GAP), PAPER)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for number, (title, cells) in enumerate(lines):
        top = MARGIN + number * (CELL + GAP)
        for part, text in enumerate(title.split(": ")):
            pen.text((MARGIN, top + 4 + 18 * part), text, fill=INK, font=font)
        for column, cell in enumerate(cells):
            shown_cell = Image.fromarray(cell).resize((CELL, CELL), Image.Resampling.NEAREST)
            canvas.paste(shown_cell, (MARGIN + ROW_TITLE + column * (CELL + GAP), top))
    return images.png(canvas)
