"""Scenes per second that are sampled, captioned, rendered and encoded.

    OMP_NUM_THREADS=1 python benchmarks/rendering.py --images 2000

`wall` is per second of wall time; `core` is per second of CPU time, which other processes disturb less.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

from fourfold.data import codecs
from fourfold.scenes.world import ScenesConfig, caption, render, scene


def rates(work: Callable[[], Any], images: int, repeats: int) -> dict[str, float]:
    """Return the best of the repeats, in images/s of wall time and of CPU time."""
    walls, cores = [], []
    for _ in range(repeats):
        wall, core = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cores.append(time.process_time() - core)
    return {"wall": round(images / min(walls)), "core": round(images / min(cores))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    config = ScenesConfig(image_size=options.image_size)
    scenes = [scene(0, "train", index, config) for index in range(options.images)]
    images = render(scenes, config).rgb
    work: dict[str, Callable[[], Any]] = {
        "draw": lambda: [scene(0, "train", index, config) for index in range(options.images)],
        "caption": lambda: [caption(one) for one in scenes],
        "render": lambda: render(scenes, config),
        "encode": lambda: [codecs.encode("rgb", image) for image in images],
    }
    measured = {name: rates(run, options.images, options.repeats) for name, run in work.items()}
    print(json.dumps({"image_size": options.image_size, "cores": os.cpu_count(), "images_per_second": measured}, indent=1))


if __name__ == "__main__":
    main()
