"""Labeling with a network on another device: reading and writing of other shards beside it, against one after the other.

    python benchmarks/label_overlap.py --milliseconds 4

The network is a wait of so many milliseconds for each image of 224 pixels: what a process sees of a GPU. Prints one JSON line,
then a table. Of several repetitions the fastest counts.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
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


class Waiting(Labeler):
    """Waits as for a GPU, then returns a depth that does not compress."""

    name, title, modality = "benchmark_waiting", "A network elsewhere", "depth"
    seconds, waited = 0.0, 0.0

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        start = time.perf_counter()
        time.sleep(self.seconds * len(batch["rgb"]))
        Waiting.waited += time.perf_counter() - start
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


def measure(shards: ShardSet, folder: Path, repetitions: int) -> dict[str, float]:
    """Return seconds of labeling with and without overlap, and of the network alone."""
    config = LabelingConfig(labelers={"depth": Waiting.name}, batch_size=32)
    teachers = train_teachers(shards, ShardSet(folder / "none"), config, 0, folder / "teachers", NullMetricLog())
    ways = {"overlapped": labeling.overlapped, "one_after_the_other": one_after_the_other}
    found: dict[str, float] = {}
    for number in range(repetitions):
        for name, way in ways.items():
            labeling.overlapped, Waiting.waited = way, 0.0
            start = time.perf_counter()
            label_shards(shards, teachers, config, folder / f"{name}-{number}")
            found[name] = min(found.get(name, np.inf), time.perf_counter() - start)
            found["network"] = min(found.get("network", np.inf), Waiting.waited)
    labeling.overlapped = ways["overlapped"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--milliseconds", type=float, default=4.0)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--per-shard", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    register(Waiting)
    Waiting.seconds = options.milliseconds / 1000
    with tempfile.TemporaryDirectory() as folder:
        shards = write_images(Path(folder) / "shards", options.shards, options.per_shard)
        found = measure(shards, Path(folder), options.repetitions)
    rounded = {name: round(value, 3) for name, value in found.items()}
    print(json.dumps({"images": options.shards * options.per_shard, **rounded}))
    print("| Labeling | Seconds | Against the network alone |\n| --- | --- | --- |")
    for name, seconds in found.items():
        print(f"| {name.replace('_', ' ')} | {seconds:.2f} | {seconds / found['network']:.2f} × |")


if __name__ == "__main__":
    import label_overlap  # under its name: labels record the modules of their labeler

    label_overlap.main()
