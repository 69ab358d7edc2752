"""Scenes on disk: archives in the layout of a web crawl, and shards of the exact truth.

The crawl (img2dataset layout: key.png, key.txt, key.json) is cleaned like real data; the truth is written afterward, for the
keys that cleaning kept.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fourfold.data import codecs
from fourfold.data.resuming import ResumedShards
from fourfold.data.shards import ShardSet, finish_split, forget_splits, shard_name, write_columns
from fourfold.digests import is_intact, recorded_path
from fourfold.local_workers import run_all
from fourfold.reuse import claim, fingerprint
from fourfold.scenes.world.captions import caption
from fourfold.scenes.world.config import ScenesConfig
from fourfold.scenes.world.questions import questions
from fourfold.scenes.world.render import RenderedBatch, render
from fourfold.scenes.world.scene import Scene, parse_key, scene
from fourfold.scenes.world.vocabulary import CLASS_TABLE

TRUTH = ("depth", "normal", "semseg", "det", "attributes")
MIN_PIXELS = 4  # an object with fewer visible pixels has no box


def write_crawl(folder: Path, split: str, seed: int, config: ScenesConfig) -> list[Path]:
    """Write the images and captions of a split as `<folder>/<split>/00000.tar`, …; returns the paths.

    Complete archives of an earlier run with the same settings are kept. Raises ValueError when the split has no size.
    """
    if split not in config.num_samples:
        raise ValueError(f"num_samples has no size for split {split!r}. Given: {config.num_samples}. Add the split there.")
    claim(folder / split, fingerprint(__name__, content="crawl", seed=seed, split=split, config=config), is_cheap=True)
    starts = range(0, config.num_samples[split], config.images_per_shard)
    paths = [folder / split / f"{number:05d}.tar" for number in range(len(starts))]
    missing = [(path, start) for path, start in zip(paths, starts, strict=True) if not is_intact(path.parent, path.name)]

    def write(at: tuple[Path, int]) -> None:
        path, start = at
        indices = range(start, min(start + config.images_per_shard, config.num_samples[split]))
        _write_crawl_shard(path, [scene(seed, split, index, config) for index in indices], config)

    run_all(write, missing, f"Rendering {split}", "shard")
    return paths


def _write_crawl_shard(path: Path, scenes: Sequence[Scene], config: ScenesConfig) -> None:
    rgb_SHW3 = render(scenes, config).rgb
    with (
        recorded_path(path.parent, path.name) as temporary,
        tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for one, rgb_HW3 in zip(scenes, rgb_SHW3, strict=True):
            text, (height, width, _) = caption(one), rgb_HW3.shape
            metadata = {
                "key": one.key,
                "caption": text,
                "status": "success",
                "width": width,
                "height": height,
            }
            for extension, content in (
                ("png", codecs.encode("rgb", rgb_HW3)),
                ("txt", text.encode()),
                ("json", json.dumps(metadata, sort_keys=True).encode()),
            ):
                member = tarfile.TarInfo(f"{one.key}.{extension}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def write_truth(
    folder: Path, split: str, keys: Sequence[str], seed: int, config: ScenesConfig, samples_per_shard: int | None = None
) -> None:
    """Write the exact truth of the samples `keys` (of one split, in this order) as `<folder>/<split>/<modality>/…`.

    Shards hold `samples_per_shard` keys (default: `config.images_per_shard`), so that they align with those of the cleaned
    images. Whole shards of an earlier run of the same settings are kept. Raises ValueError for keys of another split.
    """
    for key in keys:
        if parse_key(key)[0] != split:
            raise ValueError(
                f"{key!r} is not a key of split {split!r}; truth is written one split at a time. Pass keys of that split."
            )
    step = samples_per_shard or config.images_per_shard
    inputs = {"keys": hashlib.sha256("\n".join(keys).encode()).hexdigest()}
    work = fingerprint(__name__, inputs=inputs, content="truth", seed=seed, split=split, config=config, samples_per_shard=step)
    if not claim(folder / split, work, is_cheap=True):
        forget_splits(folder, keep=set(ShardSet(folder).splits()) - {split})
    starts = list(range(0, len(keys), step))
    resumed = ResumedShards(folder, TRUTH)
    tables = {"semseg": CLASS_TABLE}
    missing = [start for start in starts if resumed.missing(split, shard_name(start // step))]

    def write(start: int) -> None:
        scenes = [scene(seed, split, parse_key(key)[1], config) for key in keys[start : start + step]]
        columns = truth_columns(scenes, render(scenes, config))
        write_columns(folder, split, shard_name(start // step), columns, tables)

    run_all(write, missing, f"Truth of {split}", "shard")
    finish_split(folder, split, TRUTH, class_tables=tables)


def truth_columns(scenes: Sequence[Scene], rendered: RenderedBatch) -> dict[str, list[tuple[str, Any]]]:
    """Return, per modality of TRUTH, (key, value) pairs in the form that shards store."""
    keys = [one.key for one in scenes]
    normal = np.rint(rendered.normal * 127.5 + 127.5).astype(np.uint8)
    attributes = [_attributes(one, rendered, row) for row, one in enumerate(scenes)]
    columns: dict[str, Iterable[Any]] = {
        "depth": rendered.depth.astype(np.float16),
        "normal": normal,
        "semseg": rendered.semseg,
        "det": [{"instances": [_instance(instance) for instance in one["objects"] if instance["box"]]} for one in attributes],
        "attributes": attributes,
    }
    return {name: list(zip(keys, values, strict=True)) for name, values in columns.items()}


def _instance(instance: dict[str, Any]) -> dict[str, Any]:
    return {"box": instance["box"], "class_name": instance["shape"], "score": 1.0}


def _attributes(one: Scene, rendered: RenderedBatch, row: int) -> dict[str, Any]:
    """Return the description of a scene as JSON values: objects, floor, and the texts of the transfer tasks.

    `main_object` is the index of the object with the most visible pixels.
    """
    objects = []
    for slot, solid in enumerate(one.objects):
        is_visible = rendered.num_pixels[row, slot] >= MIN_PIXELS
        objects.append(
            {
                "shape": solid.shape,
                "color": solid.color,
                "texture": solid.texture,
                "size": solid.size,
                "position": [round(solid.x, 4), round(solid.z, 4)],
                "box": [round(float(v), 6) for v in rendered.boxes[row, slot]] if is_visible else None,
                "visible_share": round(float(rendered.visible[row, slot]), 4),
            }
        )
    return {
        "objects": objects,
        "main_object": int(rendered.num_pixels[row].argmax()),
        "floor": one.floor,
        "transfer_caption": caption(one, "transfer"),
        "questions": [{"text": q.text, "answer": q.answer, "kind": q.kind} for q in questions(one)],
    }
