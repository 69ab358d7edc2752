"""COCO captions: a folder of images, and one JSON file with all captions (arXiv 1405.0312, 1504.00325).

The file has `images` (`id`, `file_name`) and `annotations` (`image_id`, `caption`); annotations without a caption, as those of
`instances_*.json`, are counted. All captions of an image are kept; pretraining draws one of them at each visit. In memory: the
content of the file.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field

from fourfold.data.ingestion.sources.digests import digest_and_version
from fourfold.data.ingestion.sources.files import FilesConfig, after_drops, inner_path, printable, safe_key
from fourfold.data.ingestion.sources.source import Drop, RawSample, SampleStream, Source, SourceContext, SourceSlice

IMAGES_PER_SLICE = 10_000
REMEDY = "Give the file of captions as COCO publishes it, e.g. annotations/captions_train2017.json."


class CocoConfig(FilesConfig):
    """Settings of COCO captions; `path` is the folder of the images."""

    kind: Literal["coco"] = "coco"
    annotations: str = Field(min_length=1)  # path of the JSON file


@dataclass(frozen=True)
class _Image:
    """One entry of `images` with its captions, as bytes."""

    number: int
    file_name: str
    captions: tuple[bytes, ...]


class CocoSource(Source):
    """Reads each image with all its captions, in the order of `images` and of `annotations`."""

    title = "COCO captions"
    config_class = CocoConfig

    def open(self, config: CocoConfig, context: SourceContext) -> list[SampleStream]:  # noqa: D102
        root = _folder(config)
        images, drops = _read_annotations(config)
        runs = [images[start : start + IMAGES_PER_SLICE] for start in range(0, len(images), IMAGES_PER_SLICE)]
        slices = [SourceSlice(f"images from {printable(run[0].file_name)}", partial(_read, root, run, config)) for run in runs]
        paths = [path for one in images if (path := _path(root, one.file_name)) is not None]
        annotations = Path(config.annotations)
        seen = [
            digest_and_version(folder, files, config, context)
            for folder, files in ((root, paths), (annotations.parent, [annotations]))
        ]
        digest, version = (" ".join(values).strip() for values in zip(*seen, strict=True))
        return [SampleStream("coco", config.path, after_drops(drops, slices), digest, version=version)]

    def count(self, config: CocoConfig, split_of: Callable[[str], str]) -> dict[str, int]:  # noqa: D102
        _folder(config)
        return dict(Counter(split_of(_key(one.file_name)) for one in _read_annotations(config)[0]))


def _folder(config: CocoConfig) -> Path:
    root = Path(config.path)
    if not root.is_dir():
        raise ValueError(f"source.path {config.path!r} is not a folder (from {Path.cwd()}). Give the folder of the images.")
    return root


def _read_annotations(config: CocoConfig) -> tuple[list[_Image], list[Drop]]:
    """Return the images with their captions, and what belongs to none; raises ValueError if the file is of another kind."""
    path = Path(config.annotations)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or f"it is not JSON ({type(error).__name__})"
        raise ValueError(f"source.annotations {config.annotations!r} cannot be read: {reason}. {REMEDY}") from error
    lists: list[Any] = [content.get(name) if isinstance(content, dict) else None for name in ("images", "annotations")]
    if not all(isinstance(one, list) and one for one in lists):
        found = ", ".join(map(repr, content)) if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f"source.annotations {config.annotations!r} lacks a list `images` or `annotations`; found: {found[:200]}. {REMEDY}"
        )
    return _matched(*lists)


def _matched(images: Sequence[Any], annotations: Sequence[Any]) -> tuple[list[_Image], list[Drop]]:
    """Return images with their captions, each once, and the annotations that belong to none."""
    files = {one["id"]: one["file_name"] for one in images if isinstance(one, dict) and _is_image(one)}
    drops = [Drop(f"images[{index}]", "image without id and file_name", "row") for index, one in enumerate(images)
             if not (isinstance(one, dict) and _is_image(one))]  # fmt: skip
    captions: dict[int, list[bytes]] = {}
    for index, one in enumerate(annotations):
        caption = one.get("caption") if isinstance(one, dict) else None
        if not isinstance(caption, str):
            drops.append(Drop(f"annotations[{index}]", "annotation without a caption", "row"))
        elif one.get("image_id") not in files:
            drops.append(Drop(f"annotations[{index}]", "caption of an image that is not listed", "row"))
        else:
            captions.setdefault(one["image_id"], []).append(caption.encode("utf-8", "surrogatepass"))
    return [_Image(number, name, tuple(captions.get(number, ()))) for number, name in files.items()], drops


def _is_image(one: dict[str, Any]) -> bool:
    return isinstance(one.get("id"), int) and isinstance(one.get("file_name"), str) and bool(one["file_name"])


def _path(root: Path, file_name: str) -> Path | None:
    """Return the path of an image; None if its name leads out of the folder."""
    relative = inner_path(file_name)
    return None if relative is None else root / relative


def _key(file_name: str) -> str:
    return safe_key(PurePosixPath(file_name).with_suffix("").as_posix())


def _read(root: Path, images: Sequence[_Image], config: CocoConfig) -> Iterator[RawSample | Drop]:
    for image in images:
        path = _path(root, image.file_name)
        if path is None:
            yield Drop(image.file_name, "name of the image leads out of the source")
            continue
        try:
            with path.open("rb") as file:
                content = file.read(config.max_file_bytes + 1)
        except OSError as error:
            yield Drop(image.file_name, f"file cannot be read ({type(error).__name__})")
            continue
        if len(content) > config.max_file_bytes:
            yield Drop(image.file_name, "file is too large")
            continue
        first = next(iter(image.captions), None)
        yield RawSample(_key(image.file_name), image.file_name, content, first, {}, image.captions[1:])
