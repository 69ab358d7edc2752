"""Write what a model predicts for one request: values in the formats of the shards, an image of each, and a contact sheet."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fourfold import images
from fourfold.data.codecs import encode, extension
from fourfold.data.shards import ShardSet
from fourfold.generation.marking import marked_if_png
from fourfold.images import Drawing
from fourfold.modalities.class_table import ClassTable
from fourfold.storage import write_bytes, write_json

CELL, GAP, TITLE = 256, 12, 24  # pixels of the contact sheet
CELLS_PER_ROW = 8
INK, PALE, PAPER = (34, 34, 40), (112, 112, 122), (255, 255, 255)
SHEET_FILE, ANSWERS_FILE, NEIGHBORS_FILE = "sheet.png", "answers.json", "neighbors.json"


@dataclass(frozen=True)
class Cell:
    """One value on a contact sheet, under a title."""

    title: str
    label: str
    value: Any


def write_answers(
    conditions: dict[str, Any],
    answers: dict[str, Any],
    folder: Path,
    request: dict[str, Any] | None = None,
    class_table: ClassTable | None = None,
    is_part: bool = False,
) -> list[Path]:
    """Write each answer as `<label>.<extension>`, those that are no image also as `<label>_image.png`, and `sheet.png`.

    Every PNG says that a model generated it (`fourfold.generation.marking`).

    Args:
        conditions, answers: one value by label, without a batch axis.
        folder: is created if needed; files of the same names are replaced.
        request: how the answers were generated; `answers.json` records it with texts, boxes and the names of all files.
        class_table: names and colors of the classes in segmentations and boxes.
        is_part: whether only a part of each answer was generated.

    Returns:
        The files, the contact sheet last.
    """
    drawing = Drawing(conditions.get("rgb", answers.get("rgb")), class_table, size=CELL)
    written, listed = [], {}
    mark = partial(_marked, request=request or {}, is_part=is_part)
    for name, value in answers.items():
        written.append(folder / f"{name}.{extension(name, value)}")
        write_bytes(written[-1], mark(encode(name, value)))
        listed[name] = written[-1].name if isinstance(value, np.ndarray) else value
        if name != "rgb" and (image := images.draw(name, value, drawing)) is not None:
            written.append(folder / f"{name}_image.png")
            write_bytes(written[-1], mark(images.png(image)))
    write_json(folder / ANSWERS_FILE, (request or {}) | {"answers": listed})
    cells = [Cell(f"{name} in", name, value) for name, value in conditions.items()]
    cells += [Cell(name, name, value) for name, value in answers.items()]
    write_bytes(folder / SHEET_FILE, mark(images.png(contact_sheet(cells, drawing))))
    return [*written, folder / ANSWERS_FILE, folder / SHEET_FILE]


def _marked(content: bytes, request: dict[str, Any], is_part: bool) -> bytes:
    """Return the bytes of a file, marked if it is a PNG. Paths and texts of the user stay out of images that may be shared."""
    public = {name: value for name, value in request.items() if name != "conditions"}
    return marked_if_png(content, public, is_part)


def write_neighbors(
    conditions: dict[str, Any],
    ranked: dict[str, float],
    shards: ShardSet,
    split: str,
    folder: Path,
    *,
    class_table: ClassTable | None = None,
) -> list[Path]:
    """Write the results of a retrieval as `neighbors.json` and `sheet.png`.

    Args:
        conditions: The query, one value by label.
        ranked: Cosine similarity by key of a sample, the nearest first.
        shards, split: Where the images of the results are.
        folder: Is created if needed; files of the same names are replaced.
        class_table: Names and colors of the classes in segmentations and boxes of the query.
    """
    rgb_by_key: dict[str, np.ndarray] = {}
    for name in shards.shard_names(split):
        if ranked.keys() & set(shards.shard_keys(split, name)):  # read only the shards that contain a result
            rgb_by_key |= {sample["__key__"]: sample["rgb"] for sample in shards.read(split, ["rgb"], name)}
    cells = [Cell(f"{name} in", name, value) for name, value in conditions.items()]
    cells += [Cell(f"{key}  {cosine:.3f}", "rgb", rgb_by_key[key]) for key, cosine in ranked.items()]
    neighbors = [{"key": key, "cosine": round(cosine, 6)} for key, cosine in ranked.items()]
    write_json(folder / NEIGHBORS_FILE, {"split": split, "neighbors": neighbors})
    drawing = Drawing(conditions.get("rgb"), class_table, size=CELL)
    write_bytes(folder / SHEET_FILE, images.png(contact_sheet(cells, drawing)))
    return [folder / NEIGHBORS_FILE, folder / SHEET_FILE]


def contact_sheet(cells: Sequence[Cell], drawing: Drawing) -> Image.Image:
    """Return values side by side, each under its title, in rows of at most eight; text is written as text."""
    columns = min(len(cells), CELLS_PER_ROW)
    rows, height = -(-len(cells) // CELLS_PER_ROW), TITLE + CELL + GAP
    sheet = Image.new("RGB", (GAP + columns * (CELL + GAP), GAP + rows * height), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for index, cell in enumerate(cells):
        left, top = GAP + index % CELLS_PER_ROW * (CELL + GAP), index // CELLS_PER_ROW * height
        pen.text((left, top + GAP // 2), cell.title, fill=INK, font=font)
        image = images.draw(cell.label, cell.value, drawing)
        if image is None:
            text = _wrapped(str(cell.value) or "(nothing)", pen, font)
            pen.multiline_text((left, top + TITLE + GAP), text, fill=INK if cell.value else PALE, font=font)
        else:
            scaled = Image.fromarray(image).resize((CELL, CELL), Image.Resampling.NEAREST)
            sheet.paste(scaled, (left, top + TITLE + GAP))
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
