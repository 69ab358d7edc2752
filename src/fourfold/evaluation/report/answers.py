"""What a model made of one request, as files: values in the formats of the shards, a picture of each, and one contact sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fourfold.data.codecs import encode, extension
from fourfold.data.shards import ShardSet
from fourfold.evaluation.report import images as pictures
from fourfold.evaluation.report.gallery import FARTHEST, INK, NEAREST, PALE, PAPER
from fourfold.storage import write_bytes, write_json

CELL, GAP, TITLE = 256, 12, 24  # pixels of the contact sheet
CELLS_IN_A_ROW = 8
SHEET_FILE, ANSWERS_FILE, NEIGHBORS_FILE = "sheet.png", "answers.json", "neighbors.json"


@dataclass(frozen=True)
class Cell:
    """One value on a contact sheet, under a title."""

    title: str
    label: str
    value: Any


def write_answers(
    conditions: dict[str, Any], answers: dict[str, Any], folder: Path, about: dict[str, Any] | None = None
) -> list[Path]:
    """Write each answer as `<label>.<extension>`, what is no picture of itself also as `<label>_picture.png`, and `sheet.png`.

    Args:
        conditions, answers: one value by label, without a batch axis.
        folder: made when it is not there; files of the same names are replaced.
        about: how it was asked; `answers.json` holds it beside texts, boxes and the names of all other files.

    Returns:
        The files, the contact sheet last.
    """
    rgb = conditions.get("rgb", answers.get("rgb"))
    written, listed = [], {}
    for name, value in answers.items():
        written.append(folder / f"{name}.{extension(name, value)}")
        write_bytes(written[-1], encode(name, value))
        listed[name] = written[-1].name if isinstance(value, np.ndarray) else value
        if (picture := picture_of(name, value, rgb)) is not None and name != "rgb":
            written.append(folder / f"{name}_picture.png")
            write_bytes(written[-1], pictures.png(picture))
    write_json(folder / ANSWERS_FILE, (about or {}) | {"answers": listed})
    cells = [Cell(f"{name} in", name, value) for name, value in conditions.items()]
    cells += [Cell(name, name, value) for name, value in answers.items()]
    write_bytes(folder / SHEET_FILE, pictures.png(contact_sheet(cells, rgb)))
    return [*written, folder / ANSWERS_FILE, folder / SHEET_FILE]


def write_neighbors(
    conditions: dict[str, Any], ranked: dict[str, float], shards: ShardSet, split: str, folder: Path
) -> list[Path]:
    """Write what was found for a query, `ranked` cosines by key, as `neighbors.json` and as `sheet.png` of the images."""
    images: dict[str, np.ndarray] = {}
    for name, keys in shards.keys_by_shard(split).items():
        if ranked.keys() & set(keys):
            images |= {sample["__key__"]: sample["rgb"] for sample in shards.read(split, ["rgb"], name)}
    cells = [Cell(f"{name} in", name, value) for name, value in conditions.items()]
    cells += [Cell(f"{key}  {cosine:.3f}", "rgb", images[key]) for key, cosine in ranked.items()]
    neighbors = [{"key": key, "cosine": round(cosine, 6)} for key, cosine in ranked.items()]
    write_json(folder / NEIGHBORS_FILE, {"split": split, "neighbors": neighbors})
    write_bytes(folder / SHEET_FILE, pictures.png(contact_sheet(cells, conditions.get("rgb"))))
    return [folder / NEIGHBORS_FILE, folder / SHEET_FILE]


def picture_of(name: str, value: Any, rgb_HWC: np.ndarray | None) -> np.ndarray | None:
    """Return a label's value as a picture uint8 (H, W, 3), None for text. Boxes are drawn on the image, or on gray."""
    drawn = {
        "rgb": lambda: value,
        "depth": lambda: pictures.depth_picture(value, NEAREST, FARTHEST),
        "normal": lambda: pictures.normal_picture(value),
        "semseg": lambda: pictures.class_picture(value),
        "det": lambda: pictures.box_picture(
            np.full((64, 64, 3), 128, np.uint8) if rgb_HWC is None else rgb_HWC, value["instances"]
        ),
        "clip": lambda: pictures.feature_picture(value, pictures.feature_directions(value[None]), CELL),
        "clip_global": lambda: pictures.vector_picture(value, CELL),
        "canny_edge": lambda: pictures.edge_picture(value),
        "color_palette": lambda: pictures.palette_picture(value, CELL),
    }
    return drawn[name]() if name in drawn else None


def contact_sheet(cells: Sequence[Cell], rgb_HWC: np.ndarray | None = None) -> Image.Image:
    """Return values side by side, each under its title, in rows of at most eight. Boxes are drawn on the image `rgb_HWC`."""
    columns = min(len(cells), CELLS_IN_A_ROW)
    rows, height = -(-len(cells) // CELLS_IN_A_ROW), TITLE + CELL + GAP
    sheet = Image.new("RGB", (GAP + columns * (CELL + GAP), GAP + rows * height), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for place, cell in enumerate(cells):
        left, top = GAP + place % CELLS_IN_A_ROW * (CELL + GAP), place // CELLS_IN_A_ROW * height
        pen.text((left, top + GAP // 2), cell.title, fill=INK, font=font)
        picture = picture_of(cell.label, cell.value, rgb_HWC)
        if picture is None:
            words = _wrapped(str(cell.value) or "(nothing)", pen, font)
            pen.multiline_text((left, top + TITLE + GAP), words, fill=INK if cell.value else PALE, font=font)
        else:
            shown = Image.fromarray(picture).resize((CELL, CELL), Image.Resampling.NEAREST)
            sheet.paste(shown, (left, top + TITLE + GAP))
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
