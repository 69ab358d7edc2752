"""What a model made of one request, as files: values in the formats of the shards, a picture of each, and one contact sheet."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fourfold.data.codecs import encode, extension
from fourfold.evaluation import pictures
from fourfold.evaluation.gallery import FARTHEST, INK, NEAREST, PAPER
from fourfold.storage import write_bytes

CELL, GAP, TITLE = 256, 12, 24  # pixels of the contact sheet
SHEET_FILE = "sheet.png"


def write_answers(conditions: dict[str, Any], answers: dict[str, Any], folder: Path) -> list[Path]:
    """Write each answer as `<label>.<extension>`, what is no picture of itself also as `<label>_picture.png`, and `sheet.png`.

    Args:
        conditions, answers: one value by label, without a batch axis.
        folder: made when it is not there; files of the same names are replaced.

    Returns:
        The files, the contact sheet last.
    """
    rgb = conditions.get("rgb", answers.get("rgb"))
    written = []
    for name, value in answers.items():
        written.append(folder / f"{name}.{extension(name, value)}")
        write_bytes(written[-1], encode(name, value))
        if (picture := picture_of(name, value, rgb)) is not None and name != "rgb":
            written.append(folder / f"{name}_picture.png")
            write_bytes(written[-1], pictures.png(picture))
    cells = {f"{name} in": value for name, value in conditions.items()} | answers
    write_bytes(folder / SHEET_FILE, pictures.png(contact_sheet(cells, rgb)))
    return [*written, folder / SHEET_FILE]


def picture_of(name: str, value: Any, rgb_HWC: np.ndarray | None) -> np.ndarray | None:
    """Return a label's value as a picture uint8 (H, W, 3), None for text. Boxes are drawn on the image, or on grey."""
    drawn = {
        "rgb": lambda: value,
        "depth": lambda: pictures.depth_picture(value, NEAREST, FARTHEST),
        "normal": lambda: pictures.normal_picture(value),
        "semseg": lambda: pictures.class_picture(value),
        "det": lambda: pictures.box_picture(
            np.full((64, 64, 3), 128, np.uint8) if rgb_HWC is None else rgb_HWC, value["instances"]
        ),
        "clip": lambda: pictures.feature_picture(value, pictures.feature_directions(value[None]), CELL),
        "canny_edge": lambda: pictures.edge_picture(value),
        "color_palette": lambda: pictures.palette_picture(value, CELL),
    }
    return drawn[name]() if name in drawn else None


def contact_sheet(cells: dict[str, Any], rgb_HWC: np.ndarray | None) -> Image.Image:
    """Return conditions and answers side by side, each under its name."""
    sheet = Image.new("RGB", (GAP + len(cells) * (CELL + GAP), TITLE + CELL + 2 * GAP), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for place, (title, value) in enumerate(cells.items()):
        left = GAP + place * (CELL + GAP)
        pen.text((left, GAP // 2), title, fill=INK, font=font)
        picture = picture_of(title.removesuffix(" in"), value, rgb_HWC)
        if picture is None:
            words = _wrapped(str(value), pen, font)
            pen.multiline_text((left, TITLE + GAP), words, fill=INK, font=font)
        else:
            sheet.paste(Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.NEAREST), (left, TITLE + GAP))
    return sheet


def _wrapped(text: str, pen: ImageDraw.ImageDraw, font: Any) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and pen.textlength(longer, font=font) > CELL:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
