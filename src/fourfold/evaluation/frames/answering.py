"""Folders of frames, one frame after the other in the order of their numbers, each within a time budget.

Each folder of frames becomes a folder of results: `depth/` and `semseg/` as Cityscapes and KITTI store them, `overlay/` for
people, and `metadata.jsonl` with boxes and times. A killed command continues with the next frame.
"""

# H W frame

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fourfold import images
from fourfold.data.ingestion.images import Unusable, whole_image
from fourfold.evaluation.frames.predicting import FrameAnswer, FrameSettings, predict_frame
from fourfold.evaluation.frames.timing import Times
from fourfold.evaluation.report.answer_tables import (
    SKIPPED_FILE,
    TABLE_FILE,
    answered_names,
    append_row,
    natural_order,
    record_request,
    unanswered,
)
from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.marking import marked
from fourfold.generation.requests import READABLE
from fourfold.generation.sparse_depth import KITTI_UNITS, check_sparse_depth, read_kitti_depth
from fourfold.modalities.class_table import ClassTable
from fourfold.progress import progress
from fourfold.storage import write_bytes, write_json
from fourfold.tokenizers.formats import DepthFormat

TIMES_FILE, OVERLAY = "times.json", "overlay"
WARM_UP = 2  # predictions of the first frame before times are taken
PNG_LEVEL = 1
MAX_UNITS = 65535  # of a 16-bit PNG
DEFAULT_RANGE = (1.0, 80.0)  # meters: the ends of the depth colors, if the model's own range is not known


@dataclass(frozen=True)
class Frames:
    """What is answered, and where to.

    Attributes:
        images: a folder with a folder for each video, a folder of frames, or one frame.
        folder: of the results.
        settings: how frames are answered.
        sparse: a folder with a 16-bit PNG of sparse depth for each frame, in the same sub-folders and with the same names; or
            the file for one frame. Frames without a file are answered without it.
        budget_ms: milliseconds that a frame may take from the file to its answers; None: times are only reported.
    """

    images: Path
    folder: Path
    settings: FrameSettings = field(default_factory=FrameSettings)
    sparse: Path | None = None
    budget_ms: float | None = None

    def __post_init__(self) -> None:
        if self.budget_ms is not None and not self.budget_ms > 0:
            raise ValueError(f"The budget of a frame is {self.budget_ms:g} ms; it must be above 0. Correct it.")
        if self.sparse is not None and self.sparse.is_dir() != self.images.is_dir():
            raise ValueError(f"{self.images} and {self.sparse} must both be folders, or both files. Give a pair of one kind.")
        if self.images.is_dir() and self.folder.resolve().is_relative_to(self.images.resolve()):
            raise ValueError(
                f"{self.folder} is inside of {self.images}, so results would be read as frames. Choose another folder."
            )

    def sparse_of(self, relative: Path) -> Path | None:
        """Return the file with the sparse depth of a frame; None if there is none."""
        if self.sparse is None or not self.images.is_dir():
            return self.sparse
        path = self.sparse / relative.with_suffix(".png")
        return path if path.is_file() else None

    def todo(self, counts: Counter[str]) -> Iterator[tuple[Path, Path]]:
        """Yield each frame without an answer, and its path below `images`, in the order of their numbers."""
        if self.images.is_dir():
            yield from unanswered(self.images, self.folder, counts, natural_order)
        elif self.images.name in answered_names(self.folder):
            counts["answered before"] += 1
        else:
            yield self.images, Path(self.images.name)


def answer_frames(model: AnyToAny, frames: Frames, class_table: ClassTable | None = None) -> tuple[Counter[str], Times]:
    """Answer every frame that has no answer yet; links are not followed. Memory does not grow with the number of frames.

    The time of a frame starts before its file is read and ends when its answers are there in the size of the frame. Writing
    them as PNG files is timed separately and is not part of the budget.

    Returns:
        Counts ("answered", "answered before", "without sparse depth", the reasons of what was skipped, ...), and the times of
        this call, which are also in `times.json`.

    Raises:
        ValueError: the model lacks a label, or the folder has answers to another request.
    """
    _check(model, frames)
    settings = frames.settings
    about = {"targets": list(settings.targets), "view": settings.view, "preset": settings.preset, "seed": settings.seed}
    about |= {"model": model.digest(), "sparse_depth": frames.sparse is not None}
    record_request(frames.folder, about)
    run = _Answering(model, frames, _Writer(frames.folder, about, class_table, _depth_range(model)))
    for path, relative in progress(frames.todo(run.counts), "answering", unit="frames"):
        run.answer(path, relative)
    if len(run.times):
        write_json(frames.folder / TIMES_FILE, run.times.summary())
    return +run.counts, run.times


def _check(model: AnyToAny, frames: Frames) -> None:
    for target in frames.settings.targets:
        if reason := model.lacks("rgb", target):
            raise ValueError(f"Frames cannot be answered with {target}: {reason}. Leave it out, or give another model.")
    if frames.sparse is not None:
        check_sparse_depth(model)


def _read(frames: Frames, path: Path, relative: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a frame and its sparse depth; raises ValueError with the reason if one of them cannot be read."""
    try:
        rgb_HW3 = whole_image(path.read_bytes(), READABLE)
    except (OSError, Unusable) as error:
        raise ValueError(getattr(error, "strerror", None) or str(error)) from error
    sparse = frames.sparse_of(relative)
    return rgb_HW3, None if sparse is None else read_kitti_depth(sparse, rgb_HW3.shape[:2])


def _counted(reason: str) -> str:
    """Return a reason without the name of the file, so that equal ones are counted together."""
    return "its sparse depth cannot be used" if os.sep in reason else reason


def _depth_range(model: AnyToAny) -> tuple[float, float]:
    """Return the ends of the depth colors, the same for all frames: the range of the depths that the model learned."""
    tokenizer = model.tokenizers.visual.get("depth")
    if tokenizer is None or not isinstance(tokenizer.format, DepthFormat):
        return DEFAULT_RANGE
    near, far = (float(np.exp(tokenizer.format.statistics[name][0])) for name in ("lowest", "highest"))
    return near, max(far, 1.01 * near)


class _Answering:
    """One call of `answer_frames`: what is counted and timed."""

    def __init__(self, model: AnyToAny, frames: Frames, writer: "_Writer") -> None:
        self.model, self.frames, self.writer = model, frames, writer
        self.counts, self.times, self.is_warm = Counter[str](), Times(frames.budget_ms), False

    def answer(self, path: Path, relative: Path) -> None:
        """Answer one frame, or note why it cannot be read."""
        start = time.perf_counter()
        try:
            rgb_HW3, sparse_HW = _read(self.frames, path, relative)
        except ValueError as error:
            row = {"file_name": relative.name, "reason": str(error)}
            append_row(self.frames.folder / relative.parent / SKIPPED_FILE, row)
            self.counts[f"skipped: {_counted(str(error))}"] += 1
            return
        read = time.perf_counter() - start
        for _ in range(0 if self.is_warm else WARM_UP):
            predict_frame(self.model, rgb_HW3, self.frames.settings, sparse_HW)
        self.is_warm = True
        start = time.perf_counter()
        answer = predict_frame(self.model, rgb_HW3, self.frames.settings, sparse_HW)
        predicted = time.perf_counter()
        files = self.writer.write(relative, rgb_HW3, answer)
        spent = {"read": read, "predict": predicted - start, "total": read + predicted - start}
        spent_ms = {name: 1000 * value for name, value in (spent | {"write": time.perf_counter() - predicted}).items()}
        is_late = self.times.add(spent_ms)
        self.writer.finish(relative, files, answer, spent_ms, None if self.frames.budget_ms is None else is_late)
        self.counts["answered"] += 1
        self.counts["late"] += is_late
        self.counts["without sparse depth"] += self.frames.sparse is not None and sparse_HW is None


@dataclass(frozen=True)
class _Writer:
    """Writes the files of a frame, then its line."""

    folder: Path
    about: dict[str, Any]
    class_table: ClassTable | None
    depth_range: tuple[float, float]

    def write(self, relative: Path, rgb_HW3: np.ndarray, answer: FrameAnswer) -> dict[str, str]:
        """Write maps and overlay of a frame; return the names of the files."""
        drawing = images.Drawing(rgb_HW3, self.class_table, depth_range=self.depth_range)
        shown = {OVERLAY: images.overlay_image(answer.values, drawing)}
        if "depth" in answer.values:
            units = np.nan_to_num(answer.values["depth"]) * KITTI_UNITS
            is_known = np.isfinite(answer.values["depth"])
            shown["depth"] = np.where(is_known, np.clip(np.rint(units), 1, MAX_UNITS), 0).astype(np.uint16)
        if "semseg" in answer.values:
            shown["semseg"] = answer.values["semseg"]
        names = {name: f"{name}/{_png_name(relative.name)}" for name in shown}
        for name, values in shown.items():
            content = marked(images.png(values, PNG_LEVEL), self.about, is_part=name == OVERLAY)
            write_bytes(self.folder / relative.parent / names[name], content)
        return names

    def finish(
        self, relative: Path, files: dict[str, str], answer: FrameAnswer, spent_ms: dict[str, float], is_late: bool | None
    ) -> None:
        """Add the line of a frame, which marks it as done."""
        row: dict[str, Any] = {"file_name": relative.name, **files}
        row |= {"det": answer.values["det"]} if "det" in answer.values else {}
        row |= {"sparse_tokens": [answer.num_given, answer.num_tokens]} if answer.num_tokens else {}
        row |= {"ms": {name: round(value, 3) for name, value in spent_ms.items()}}
        row |= {} if is_late is None else {"late": is_late}
        append_row(self.folder / relative.parent / TABLE_FILE, row)


def _png_name(name: str) -> str:
    return name if name.lower().endswith(".png") else f"{name}.png"
