"""Answers about all images of a folder: captions, and any other labels, beside each other in a folder of the same layout.

`metadata.jsonl` in each folder has one line per image, as in an ImageFolder of Hugging Face (`file_name`, `text`): captions
that are generated here can be trained on.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fourfold.data.codecs import encode, extension
from fourfold.evaluation.report.answer_tables import SKIPPED_FILE, TABLE_FILE, append_row, record_request, unanswered
from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.marking import marked_if_png
from fourfold.generation.requests import Request, generate_many, prepare
from fourfold.progress import progress
from fourfold.storage import write_bytes

AT_ONCE = 32  # images that are read, answered and written together


@dataclass(frozen=True)
class FolderRequest:
    """What is wanted for each image.

    Attributes:
        targets: labels.
        preset: a name of `PRESETS`.
        seed: of each image alike; a result depends on the image and the seed only.
        caption: an optional second condition, the same for all images.
    """

    targets: Sequence[str]
    preset: str = "greedy"
    seed: int = 0
    caption: str | None = None

    def of(self, rgb: np.ndarray) -> Request:
        """Return the request for one image."""
        conditions = {"rgb": rgb} | ({} if self.caption is None else {"caption": self.caption})
        return Request(conditions, self.targets, self.preset, seed=self.seed)


def answer_folder(model: AnyToAny, images: Path, folder: Path, request: FolderRequest) -> Counter[str]:
    """Answer `request` for every image below `images`; links are not followed. A killed call continues where it stopped.

    Memory is bounded by the number of files in one folder. `skipped.jsonl` has a line with the reason for each image that
    cannot be read.

    Returns:
        Counts: "answered", "answered before", "not an image", and the reasons of what was skipped.

    Raises:
        ValueError: `folder` has answers to another request or of another model.
    """
    about = {"targets": list(request.targets), "preset": request.preset, "seed": request.seed, "caption": request.caption}
    about |= {"model": model.digest()}
    record_request(folder, about)
    counts: Counter[str] = Counter()
    todo = progress(unanswered(images, folder, counts), "answering", unit="images")
    while part := list(islice(todo, AT_ONCE)):
        _answer(model, part, folder, request, about, counts)
    return counts


def _answer(
    model: AnyToAny,
    part: Sequence[tuple[Path, Path]],
    folder: Path,
    request: FolderRequest,
    about: dict[str, Any],
    counts: Counter[str],
) -> None:
    """Answer some images and write their lines, after the files that these name."""
    readable: dict[Path, np.ndarray] = {}
    for path, relative in part:
        try:
            readable[relative] = prepare(model, "rgb", path)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            append_row(folder / relative.parent / SKIPPED_FILE, {"file_name": relative.name, "reason": reason})
            counts[f"skipped: {reason}"] += 1
    answers = generate_many(model, [request.of(rgb) for rgb in readable.values()]) if readable else []
    for relative, found in zip(readable, answers, strict=True):
        row: dict[str, Any] = {"file_name": relative.name}
        for name, value in found.items():
            row["text" if name == "caption" else name] = _stored(folder / relative, name, value, about)
        append_row(folder / relative.parent / TABLE_FILE, row)
        counts["answered"] += 1


def _stored(path: Path, name: str, value: Any, about: dict[str, Any]) -> Any:
    """Return what a line has for one answer: the value itself, or the name of the file that is written for it."""
    if not isinstance(value, np.ndarray):
        return value
    file = path.with_name(f"{path.name}.{name}.{extension(name, value)}")
    write_bytes(file, marked_if_png(encode(name, value), about))
    return file.name
