"""The gallery: the first samples of a split as input, teacher's, student's and true values of every modality.

The samples are the first ones of the split; nobody selects them. Which modalities are shown, and under which titles, is
declared by the prediction tasks (`PredictionTask.gallery_title`).
"""

import textwrap
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fourfold import images
from fourfold.evaluation.config import EvaluationConfig
from fourfold.evaluation.error_maps import comparable, counted_pixels, error_map
from fourfold.evaluation.evaluate import Predictor, predict_pairs, required_names
from fourfold.evaluation.fit import fitting_tasks, has_relative_depth, shape_misfit
from fourfold.evaluation.samples import EvaluationData, Samples, load_samples
from fourfold.evaluation.tasks import PREDICTION_TASKS, PredictionTask, select_tasks, task_pairs
from fourfold.images import Drawing
from fourfold.modalities.class_table import ClassTable

CELL, GAP, MARGIN = 128, 10, 28  # pixels of the gallery as one image
TITLE_HEIGHT, LINE_HEIGHT, MAX_LINES = 26, 20, 6
INK, PAPER = (34, 34, 40), (255, 255, 255)


@dataclass(frozen=True)
class GalleryRow:
    """One sample. `images[role][label]` are uint8 (H, W, 3); a role is teacher, student, truth or error."""

    key: str
    rgb: np.ndarray
    caption: str
    predicted_caption: str  # "" without the task rgb->caption
    images: dict[str, dict[str, np.ndarray]]
    from_caption: dict[str, np.ndarray]  # what the student predicts from the caption alone, by label


@dataclass(frozen=True)
class Gallery:
    """Some samples, and what their columns are called."""

    rows: list[GalleryRow] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)  # label → title, of predictions from RGB
    caption_columns: dict[str, str] = field(default_factory=dict)  # the same from the caption
    class_table: ClassTable | None = None


def collect_gallery(any_to_any: Predictor, data: EvaluationData, config: EvaluationConfig, seed: int) -> Gallery:
    """Return the first `config.gallery_samples` samples of `data.split`, with the predictions of all shown tasks."""
    samples = load_samples(data, data.split, required_names(), config.gallery_samples)
    shown = [task for _, task in PREDICTION_TASKS.items() if task.gallery_title or task.pair == "rgb->caption"]
    # A text encoder is needed for scores, not for images.
    tasks, _ = select_tasks(samples, None, [replace(task, needs_encoder=False) for task in shown])
    tasks, _ = fitting_tasks(any_to_any, samples, tasks)
    predictions = predict_pairs(any_to_any, samples, task_pairs(tasks), config, seed)
    tasks = [task for task in tasks if not shape_misfit(predictions[task.source, task.target], samples, task.target)]
    from_rgb = {task.target: task for task in tasks if task.source == "rgb" and task.gallery_title}
    from_caption = {task.target: task for task in tasks if task.source == "caption"}
    is_relative = has_relative_depth(any_to_any)
    values = {
        "teacher": samples.labels,
        "student": {target: comparable(target, predictions["rgb", target], samples, is_relative) for target in from_rgb},
        **({"truth": samples.truth_only} if samples.exact else {}),
    }
    captions = predictions.get(("rgb", "caption"), [""] * len(samples))
    rows = []
    for index in range(len(samples)):
        drawing = Drawing(samples.rgb[index], samples.class_table, samples.labels.get("clip"), samples.rgb.shape[1])
        drawn = {role: _drawn(from_rgb, columns, index, drawing) for role, columns in values.items()}
        drawn["error"] = _errors(samples, values["student"], index)
        dreamed = {target: predictions["caption", target] for target in from_caption}
        rows.append(
            GalleryRow(
                key=samples.keys[index],
                rgb=samples.rgb[index],
                caption=samples.captions[index],
                predicted_caption=captions[index],
                images=drawn,
                from_caption=_drawn(from_caption if samples.captions[index] else {}, dreamed, index, drawing),
            )
        )
    return Gallery(rows, _titles(from_rgb), _titles(from_caption), samples.class_table)


def gallery_image(gallery: Gallery, max_rows: int = 4) -> Image.Image:
    """Return the gallery as one image: a row per sample with the input, the student's predictions, and caption → image.

    Raises:
        ValueError: the gallery is empty.
    """
    if not gallery.rows:
        raise ValueError("The gallery is empty. Set evaluation.gallery_samples to 1 or more.")
    titles = ["Image in", *gallery.columns.values(), "Caption out", "From true caption"]
    caption_column = len(gallery.columns) + 1  # two cells wide
    rows = gallery.rows[:max_rows]
    width = 2 * MARGIN + (len(titles) + 1) * (CELL + GAP) - GAP
    canvas = Image.new("RGB", (width, 2 * MARGIN + TITLE_HEIGHT + len(rows) * (CELL + GAP) - GAP), PAPER)
    pen = ImageDraw.Draw(canvas)
    starts = [MARGIN + (column + (column > caption_column)) * (CELL + GAP) for column in range(len(titles))]
    for left, title in zip(starts, titles, strict=True):
        pen.text((left, MARGIN - 6), title, fill=INK, font=ImageFont.load_default(15))
    for number, row in enumerate(rows):
        top = MARGIN + TITLE_HEIGHT + number * (CELL + GAP)
        predicted = [row.images["student"].get(name) for name in gallery.columns]
        for left, cell in zip(starts, [row.rgb, *predicted, None, row.from_caption.get("rgb")], strict=True):
            if cell is not None:
                canvas.paste(Image.fromarray(cell).resize((CELL, CELL), Image.Resampling.NEAREST), (left, top))
        _write(pen, row.predicted_caption or "(nothing)", (starts[caption_column], top), 2 * CELL + GAP - 12)
    return canvas


def gallery_png(gallery: Gallery, max_rows: int = 4) -> bytes:
    """Return the gallery as one PNG; equal galleries have equal bytes."""
    return images.png(gallery_image(gallery, max_rows))


def _titles(tasks: dict[str, PredictionTask]) -> dict[str, str]:
    return {target: task.gallery_title or target for target, task in tasks.items()}


def _drawn(tasks: dict[str, PredictionTask], values: dict[str, Any], index: int, drawing: Drawing) -> dict[str, np.ndarray]:
    """Return one sample's values as images, for the targets of some tasks that have a value."""
    drawn: dict[str, np.ndarray] = {}
    for target, task in tasks.items():
        if target in values:
            value = values[target][index]
            image = task.draw(value) if task.draw is not None else images.draw(target, value, drawing)
            if image is not None:
                drawn[target] = image
    return drawn


def _errors(samples: Samples, predicted: dict[str, Any], index: int) -> dict[str, np.ndarray]:
    """Return where one sample's predictions differ from the truth, or from the teacher's labels where there is none."""
    found = {
        name: error_map(name, values[index], samples.truth[name][index], counted_pixels(name, samples, index))
        for name, values in predicted.items()
        if isinstance(values, np.ndarray) and isinstance(samples.truth.get(name), np.ndarray)
    }
    return {name: image for name, image in found.items() if image is not None}


def _write(pen: ImageDraw.ImageDraw, text: str, corner: tuple[int, int], width: int) -> None:
    font = ImageFont.load_default(15)
    letters = max(8, int(width / (pen.textlength("abcdefghij klmno", font=font) / 16)))
    lines = textwrap.wrap(text, letters)[:MAX_LINES]
    top = corner[1] + (CELL - LINE_HEIGHT * len(lines)) / 2
    for number, line in enumerate(lines):
        pen.text((corner[0], top + LINE_HEIGHT * number), line, fill=INK, font=font)
