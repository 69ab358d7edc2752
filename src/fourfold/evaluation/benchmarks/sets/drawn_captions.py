"""Captions of COCO from which images are generated: the first of each image, some that are drawn, or those of a list."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fourfold.evaluation.benchmarks.official import Example, StoredExamples
from fourfold.evaluation.benchmarks.sets.reading import by_image, read_json_file, read_lines, read_rgb
from fourfold.evaluation.config import BenchmarkConfig
from fourfold.seeds import numpy_generator

# Splits of which captions are drawn, and how many: those of most published numbers, also of 4M's script (`coco_30k.yaml` of
# apple/ml-4m). Its list of captions is not published: it shuffles the images with a seed and takes one caption of each
DRAWN = {"val2014": 30_000}
SEED = 0  # of the draw; not that of the run, so that all models get the same captions


def read_generation_captions(folder: Path, split: str, caption_ids: Path | None = None) -> StoredExamples:
    """Return images with the one caption of each from which an image is generated; annotations are not kept in memory.

    Without a list, the captions of `val2014` are drawn: 30,000 different images in a random order, and one of the captions of
    each. Of other splits they are the first caption of each image, by the ids of the images.

    Args:
        folder: with `annotations/captions_{split}.json` and `{split}/`.
        split: of COCO.
        caption_ids: a text file with one id of a caption per line; None: no list.

    Returns:
        Examples whose truth is a list of one caption. Their key is the id of the image; where captions are drawn or listed, it
        is that of the caption, because a list may have several captions of an image.

    Raises:
        ValueError: a file is absent or damaged, or an id of the list is no number, unknown or repeated.
    """
    path = folder / f"annotations/captions_{split}.json"
    content = read_json_file(path)
    names = {image["id"]: image["file_name"] for image in content["images"]}
    captions = [each for each in content["annotations"] if each["image_id"] in names]
    if caption_ids is not None:
        chosen = [(each["id"], each) for each in _listed(captions, caption_ids, path)]
    elif split in DRAWN:
        chosen = [(each["id"], each) for each in draw_captions(captions, split, DRAWN[split])]
    else:
        grouped = by_image(captions)
        chosen = [(number, grouped[number][0]) for number in sorted(grouped)]

    def load(row: tuple[int, str, str]) -> Example:
        number, name, caption = row
        return Example(str(number), read_rgb(folder / split / name), [caption])

    return StoredExamples([(key, names[each["image_id"]], each["caption"]) for key, each in chosen], load)


def draw_captions(captions: Iterable[dict[str, Any]], split: str, count: int) -> list[dict[str, Any]]:
    """Return one caption of each of `count` different images, or of all if there are fewer, in a random order.

    What is drawn depends on the ids of captions and images and on the split, not on the order of the annotations or the seed
    of a run. Fewer captions are the first ones of more.
    """
    grouped, rng = by_image(captions), numpy_generator(SEED, "coco_generation", split)
    images = sorted(grouped)
    order, places = rng.permutation(len(images)), rng.random(len(images))
    found = []
    for index in order[:count]:
        own = sorted(grouped[images[index]], key=lambda each: each["id"])
        found.append(own[int(places[index] * len(own))])
    return found


def choice_of_captions(config: BenchmarkConfig) -> str:
    """Return which captions a configuration chooses, in words, to state with the numbers; ValueError if the list is absent."""
    if config.caption_ids is not None:
        read_lines(config.caption_ids)  # its error is the clear one
        digest = hashlib.sha256(config.caption_ids.read_bytes()).hexdigest()
        return f"those of {config.caption_ids.name}, SHA-256 {digest}"
    if config.split in DRAWN:
        return (
            f"one of each of {DRAWN[config.split]:,} images of {config.split}, drawn with a fixed seed; other lists of 30,000, "
            "also 4M's, which is not published, give other numbers"
        )
    return f"the first of each image of {config.split}"


def _listed(captions: Iterable[dict[str, Any]], list_path: Path, path: Path) -> list[dict[str, Any]]:
    known = {each["id"]: each for each in captions}
    found: dict[int, dict[str, Any]] = {}
    for line in read_lines(list_path):
        number = int(line) if line.isascii() and line.isdecimal() else None
        reason = ""
        if number is None:
            reason = "is no number"
        elif number not in known:
            reason = "is no id of a caption"
        elif number in found:
            reason = "is repeated"
        if reason or number is None:
            raise ValueError(
                f"{list_path}: {line!r} {reason}. Allowed: ids of captions, not of images, one per line, each once. Use those "
                f"of the `annotations` in {path}."
            )
        found[number] = known[number]
    if not found:
        raise ValueError(f"{list_path} has no ids. Write one id of a caption per line, or remove caption_ids.")
    return list(found.values())
