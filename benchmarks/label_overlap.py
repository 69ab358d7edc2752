"""Labeling with a network on another device: reading and writing of other shards beside it, against one after the other.

    python benchmarks/label_overlap.py --milliseconds 4
    python benchmarks/label_overlap.py --teachers data/00_teachers --shards 4 --per-shard 16

The network is a wait of so many milliseconds for each image of 224 pixels: what a process sees of a GPU. With `--teachers` it
is the networks that `make teachers` has fetched (segments, boxes, features), on one core: their time is that of their layers
alone, without resizing, decoding of boxes and the like. Prints one JSON line, then a table. Of several repetitions the fastest
counts.
"""

import argparse
import functools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.labelers import LabelingConfig, label_shards, labeling, train_teachers
from fourfold.labelers.protocol import Batch, Labeler
from fourfold.labelers.registry import register
from fourfold.metric_log import NullMetricLog
from fourfold.seeds import numpy_generator

SIDE = 224  # pixels


class Clock:
    """Sums the seconds of calls."""

    seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that does the same and is timed."""

        @functools.wraps(function)
        def call(*arguments: Any, **settings: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **settings)
            finally:
                self.seconds += time.perf_counter() - start

        return call


CLOCK = Clock()  # of networks


class Waiting(Labeler):
    """Waits as for a GPU, then returns a depth that does not compress."""

    name, title, modality = "benchmark_waiting", "A network elsewhere", "depth"
    seconds = 0.0

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        CLOCK.timed(time.sleep)(self.seconds * len(batch["rgb"]))
        return [1 + rgb_HW3[..., 0].astype(np.float16) / 10 for rgb_HW3 in batch["rgb"]]


def one_after_the_other(items: Any, read: Any, work: Any, write: Any) -> Iterator[Any]:
    """Do what `overlapped` does without overlap."""
    for item in items:
        yield write(item, work(item, read(item)))


def write_images(root: Path, num_shards: int, per_shard: int) -> ShardSet:
    """Write images that PNG compresses as real ones."""
    for shard in range(num_shards):
        rng, keys = numpy_generator(0, "images", shard), [f"s{shard:03d}-{index:04d}" for index in range(per_shard)]
        coarse = rng.integers(0, 200, (per_shard, SIDE // 8, SIDE // 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
        images = coarse + rng.integers(0, 4, coarse.shape, dtype=np.uint8)
        columns = {"rgb": zip(keys, images, strict=True), "caption": zip(keys, ["a photo"] * per_shard, strict=True)}
        write_columns(root, "train", shard_name(shard), columns)
    finish_split(root, "train", ["rgb", "caption"])
    return ShardSet(root)


def packaged(folder: str) -> dict[str, Any]:
    """Return labelers of the fetched networks, whose layers are timed from now on."""
    from fourfold.labelers.packaged.efficientnet import EfficientNetLite
    from fourfold.labelers.packaged.graphs import Graph

    for owner, name in ((Graph, "run"), (EfficientNetLite, "features"), (EfficientNetLite, "classify")):
        setattr(owner, name, CLOCK.timed(getattr(owner, name)))
    return {modality: {"kind": "packaged", "folder": folder} for modality in ("semseg", "det", "clip")}


def measure(shards: ShardSet, folder: Path, labelers: dict[str, Any], repetitions: int) -> dict[str, float]:
    """Return seconds of labeling with and without overlap, and of the networks alone."""
    config = LabelingConfig.model_validate({"labelers": labelers, "batch_size": 32})
    teachers = train_teachers(shards, ShardSet(folder / "none"), config, 0, folder / "teachers", NullMetricLog())
    ways = {"overlapped": labeling.overlapped, "one_after_the_other": one_after_the_other}
    found: dict[str, float] = {}
    for number in range(repetitions):
        for name, way in ways.items():
            labeling.overlapped, CLOCK.seconds = way, 0.0
            start = time.perf_counter()
            label_shards(shards, teachers, config, folder / f"{name}-{number}")
            found[name] = min(found.get(name, np.inf), time.perf_counter() - start)
            found["network"] = min(found.get("network", np.inf), CLOCK.seconds)
    labeling.overlapped = ways["overlapped"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--milliseconds", type=float, default=4.0)
    parser.add_argument("--teachers", help="a folder that `make teachers` has filled")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--per-shard", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    register(Waiting)
    Waiting.seconds = options.milliseconds / 1000
    with tempfile.TemporaryDirectory() as folder:
        shards = write_images(Path(folder) / "shards", options.shards, options.per_shard)
        labelers = packaged(options.teachers) if options.teachers else {"depth": Waiting.name}
        found = measure(shards, Path(folder), labelers, options.repetitions)
    rounded = {name: round(value, 3) for name, value in found.items()}
    print(json.dumps({"images": options.shards * options.per_shard, **rounded}))
    print("| Labeling | Seconds | Against the network alone |\n| --- | --- | --- |")
    for name, seconds in found.items():
        print(f"| {name.replace('_', ' ')} | {seconds:.2f} | {seconds / found['network']:.2f} × |")


if __name__ == "__main__":
    import label_overlap  # under its name: labels record the modules of their labeler

    label_overlap.main()
