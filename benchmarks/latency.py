"""How long a trained model takes for frames of a camera, and how many images per second it answers in batches.

    python benchmarks/latency.py                                      # the model of data/04_models/any_to_any, KITTI's size
    python benchmarks/latency.py --image frame.png --view squash --to depth,semseg --precision bf16
    CUDA_VISIBLE_DEVICES= python benchmarks/latency.py                # the CPU of a machine with a GPU

Latency is of one frame, from pixels to answers in the size of the frame, without reading and writing files: `greedy` (a pass of
the decoder for each map), `one_pass` (one for all maps), the same with sparse depth, and each label alone. Throughput is of
square images in batches, with the preset `one_pass`. All rows are measured in turn, so that whatever else the machine does
slows all of them alike; `CPU ms` is what all threads computed, which other programs change less. Without --image, pixels are
random: boxes are text, and real frames have other numbers of them. Prints a table and one JSON line.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe
from PIL import Image

from fourfold.evaluation.benchmarks.views import View
from fourfold.evaluation.frames.predicting import TARGETS, FrameSettings, predict_frame
from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.released import is_released
from fourfold.training.precision import autocast, compute_facts, default_device

WARM_UP = 3
LIDAR_SHARE = 0.05  # of the pixels: about as many as KITTI's velodyne_raw has
PERCENTILES = (50, 95)


def frame_of(image: Path | None, size: str) -> np.ndarray:
    """Return a frame uint8 (H, W, 3): a file, or random pixels."""
    if image is not None:
        return np.asarray(Image.open(image).convert("RGB"))
    height, width = (int(length) for length in size.split("x"))
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sparse_depth(shape: tuple[int, ...]) -> np.ndarray:
    """Return depth in meters float32 (H, W) in the lower half of a frame, at random pixels."""
    rng = np.random.default_rng(0)
    depth_HW = rng.uniform(4, 60, shape[:2]).astype(np.float32)
    depth_HW[rng.random(shape[:2]) > 2 * LIDAR_SHARE] = 0
    depth_HW[: shape[0] // 2] = 0
    return depth_HW


def measure(work: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return the milliseconds of each function in each round: what passed, and what all threads computed."""
    for function in work.values():
        for _ in range(WARM_UP):
            function()
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, function in work.items():
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            start, computed = time.perf_counter(), time.process_time()
            function()  # answers are arrays on the CPU, so the GPU has finished
            spent[name].append((1000 * (time.perf_counter() - start), 1000 * (time.process_time() - computed)))
    return spent


def rows_of_frames(model: AnyToAny, frame: np.ndarray, targets: list[str], view: str) -> dict[str, Callable[[], object]]:
    """Return what is measured of one frame, by the name of the row."""

    def answer(preset: str, labels: list[str], sparse: np.ndarray | None = None) -> Callable[[], object]:
        settings = FrameSettings(labels, view, preset)
        return lambda: predict_frame(model, frame, settings, sparse)

    rows = {"all, greedy": answer("greedy", targets), "all, one_pass": answer("one_pass", targets)}
    if "depth" in targets and not model.has_relative_depth:
        rows["all, one_pass, sparse depth"] = answer("one_pass", targets, sparse_depth(frame.shape))
    return rows | {f"{target} alone": answer("one_pass", [target]) for target in targets}


def rows_of_batches(
    model: AnyToAny, frame: np.ndarray, targets: list[str], sizes: list[int]
) -> dict[str, Callable[[], object]]:
    """Return what is measured of batches of square images."""
    image = View("squash", model.image_side("rgb")).inputs(frame)

    def answer(size: int) -> Callable[[], object]:
        batch = image.repeat(size, axis=0)
        return lambda: model.predict({"rgb": batch}, targets, preset="one_pass", batch_size=size)

    return {f"batch of {size}": answer(size) for size in sizes}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("data/04_models/any_to_any"))
    parser.add_argument("--image", type=Path, help="a frame; by default random pixels")
    parser.add_argument("--size", default="375x1242", help="height and width of random pixels")
    parser.add_argument("--to", default=",".join(TARGETS))
    parser.add_argument("--view", default="windows", choices=("squash", "crop", "windows"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--batches", default="1,8,32", help="sizes of batches of square images")
    options = parser.parse_args(arguments)
    model = AnyToAny.from_released(options.model) if is_released(options.model) else AnyToAny.load(options.model)
    device = default_device()
    model.model.to(device)
    frame, targets = frame_of(options.image, options.size), options.to.split(",")
    sizes = [int(size) for size in options.batches.split(",")]
    frames, batches = rows_of_frames(model, frame, targets, options.view), rows_of_batches(model, frame, targets, sizes)
    with autocast(options.precision, device):
        spent = measure(frames | batches, options.rounds)
    facts = compute_facts(options.precision, device)
    parts = len(View(options.view, model.image_side("rgb")).boxes(*frame.shape[:2]))
    print(f"{facts['device']}, {facts['num_threads']} threads, {facts['instruction_set']}, {facts['precision']}")
    print(f"{frame.shape[0]} x {frame.shape[1]} pixels, view {options.view} ({parts} inputs), to {options.to}")
    print(f"{'':30}{'p50 ms':>9}{'p95 ms':>9}{'CPU ms':>9}{'images/s':>10}")
    table = {}
    for name, pairs in spent.items():
        passed, computed = zip(*pairs, strict=True)
        p50, p95 = (round(float(np.percentile(passed, percent)), 2) for percent in PERCENTILES)
        cpu, rate = float(np.median(computed)), 1000 * (sizes[list(batches).index(name)] if name in batches else 1) / p50
        table[name] = {"p50_ms": p50, "p95_ms": p95, "cpu_ms": round(cpu, 2), "per_second": round(rate, 1)}
        print(f"{name:30}{p50:9.2f}{p95:9.2f}{cpu:9.2f}{rate:10.1f}")
    report = {"rows": table, "rounds": options.rounds, "view": options.view, "frame": list(frame.shape[:2]), "to": targets}
    return report | {"facts": facts, "machine": describe()}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
