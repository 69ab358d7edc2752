"""The gallery: the first samples of a split, not picked, as input, teacher, student and truth in every modality."""

# N samples shown

import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fourfold.data.shards import ShardSet
from fourfold.evaluation.evaluate import EvaluationConfig, Predictor, predict_arrows
from fourfold.evaluation.report import images as pictures
from fourfold.evaluation.samples import Samples, load_samples

COLUMNS = {"depth": "Depth", "normal": "Normals", "semseg": "Segmentation", "det": "Boxes", "clip": "CLIP features"}
NEAREST, FARTHEST = 2.0, 10.0  # meters, the ends of the depth colors
CELL, GAP, MARGIN = 128, 10, 28  # pixels of the README's picture
INK, PALE, PAPER = (34, 34, 40), (112, 112, 122), (255, 255, 255)


@dataclass(frozen=True)
class GalleryRow:
    """One sample. `pictures[who][modality]`, who one of teacher, student, truth; `from_caption` what its caption became."""

    key: str
    rgb: np.ndarray
    caption: str
    said: str  # the student's caption
    pictures: dict[str, dict[str, np.ndarray]]
    from_caption: dict[str, np.ndarray]


def collect_gallery(
    any_to_any: Predictor,
    shards: ShardSet,
    labels: ShardSet,
    truth: ShardSet | None,
    split: str,
    config: EvaluationConfig,
    seed: int,
) -> list[GalleryRow]:
    """Return the first `config.gallery_samples` samples of a split with everything that is known or predicted of them."""
    samples = load_samples(shards, labels, truth, split, config.gallery_samples)
    if not len(samples):
        return []
    student = predict_arrows(any_to_any, samples, config, seed)
    directions = pictures.feature_directions(samples.labels["clip"])
    who = {"teacher": samples.labels, "student": student["rgb"]}
    if samples.exact:
        who["truth"] = samples.truth
    return [
        GalleryRow(
            key=samples.keys[index],
            rgb=samples.rgb[index],
            caption=samples.captions[index],
            said=student["rgb"]["caption"][index],
            pictures={name: _drawn(values, index, samples, directions) for name, values in who.items()},
            from_caption={
                "rgb": student["caption"]["rgb"][index],
                "semseg": pictures.class_picture(student["caption"]["semseg"][index]),
            },
        )
        for index in range(len(samples))
    ]


def _drawn(values: dict[str, Any], index: int, samples: Samples, directions: Any) -> dict[str, np.ndarray]:
    rgb = samples.rgb[index]
    drawn = {
        "depth": pictures.depth_picture(values["depth"][index], NEAREST, FARTHEST),
        "normal": pictures.normal_picture(values["normal"][index]),
        "semseg": pictures.class_picture(values["semseg"][index]),
        "det": pictures.box_picture(rgb, values["det"][index]["instances"]),
    }
    if "clip" in values:
        drawn["clip"] = pictures.feature_picture(values["clip"][index], directions, rgb.shape[0])
    return drawn


def gallery_image(rows: list[GalleryRow], most: int = 4) -> Image.Image:
    """Return the README's picture: a row per sample; image, then what the student makes of it, then its caption's image.

    Raises ValueError when there is nothing to show.
    """
    if not rows:
        raise ValueError("The gallery is empty. Set evaluation.gallery_samples to 1 or more.")
    titles = ["Image in", *COLUMNS.values(), "Caption out", "Image from caption"]
    width = 2 * MARGIN + (len(titles) + 1) * (CELL + GAP) - GAP
    shown = rows[:most]
    canvas = Image.new("RGB", (width, 2 * MARGIN + 26 + len(shown) * (CELL + GAP) - GAP), PAPER)
    pen = ImageDraw.Draw(canvas)
    starts = [MARGIN + (place + (place > len(COLUMNS) + 1)) * (CELL + GAP) for place in range(len(titles))]
    for left, title in zip(starts, titles, strict=True):
        pen.text((left, MARGIN - 6), title, fill=INK, font=ImageFont.load_default(15))
    for number, row in enumerate(shown):
        top = MARGIN + 26 + number * (CELL + GAP)
        cells = [row.rgb, *(row.pictures["student"][name] for name in COLUMNS), None, row.from_caption["rgb"]]
        for left, cell in zip(starts, cells, strict=True):
            if cell is not None:
                canvas.paste(_cell(cell), (left, top))
        _write(pen, row.said or "(nothing)", (starts[len(COLUMNS) + 1], top), 2 * CELL + GAP - 12)
    return canvas


def gallery_png(rows: list[GalleryRow], most: int = 4) -> bytes:
    """Return the README's picture as PNG bytes."""
    return pictures.png(gallery_image(rows, most))


def _cell(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.NEAREST)


def _write(pen: ImageDraw.ImageDraw, text: str, corner: tuple[int, int], width: int) -> None:
    font = ImageFont.load_default(15)
    letters = max(8, int(width / (pen.textlength("abcdefghij klmno", font=font) / 16)))
    lines = textwrap.wrap(text, letters)[:6]
    top = corner[1] + (CELL - 20 * len(lines)) / 2
    for number, line in enumerate(lines):
        pen.text((corner[0], top + 20 * number), line, fill=INK, font=font)
