"""Ingestion against decoding, cropping and encoding the same images alone, with equally many processes.

    python benchmarks/ingestion.py --images 4000 --size 640

Generates archives of JPEG images, then measures in turn. Prints one JSON line, then a table. Of several repetitions the fastest
counts. Seconds of the processor are those of all processes together.
"""

import argparse
import io
import json
import os
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from fourfold.data import codecs
from fourfold.data.ingestion.images import clean_image
from fourfold.data.ingestion.ingest import IngestionConfig, ingest
from fourfold.local_workers import run_all

PER_ARCHIVE, COARSE_SIDE = 250, 24  # images; pixels of the pattern that is enlarged


def write_archives(folder: Path, count: int, size: int) -> None:
    """Write images of `size` × ¾ `size` pixels, as large as photographs of that size in bytes: noise adds detail."""
    folder.mkdir()
    for start in range(0, count, PER_ARCHIVE):
        with tarfile.open(folder / f"{start:07d}.tar", "w") as archive:
            for index in range(start, min(start + PER_ARCHIVE, count)):
                rng, buffer = np.random.default_rng(index), io.BytesIO()
                coarse = Image.fromarray(rng.integers(0, 256, (COARSE_SIDE, COARSE_SIDE, 3), np.uint8))
                pixels = np.asarray(coarse.resize((size, 3 * size // 4), Image.Resampling.BICUBIC))
                noisy = np.clip(pixels + rng.integers(-12, 13, pixels.shape), 0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(buffer, "JPEG", quality=90)
                for ending, content in (("jpg", buffer.getvalue()), ("txt", f"generated image {index}".encode())):
                    member = tarfile.TarInfo(f"i{index}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def alone(source: Path, config: IngestionConfig) -> None:
    """Decode, crop, resize and encode all images, and keep nothing."""

    def work(path: Path) -> None:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.name.endswith(".jpg"):
                    content = archive.extractfile(member)
                    assert content
                    rgb_HW3 = clean_image(content.read(), config.cleaning, config.image_size)
                    codecs.encode_image(rgb_HW3, config.storage.format, config.storage.quality)

    run_all(work, sorted(source.glob("*.tar")), "alone", "archive")


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Return the seconds of the clock, and of the processor in this process and those that it waited for."""
    before, start = os.times(), time.perf_counter()
    work()
    wall, after = time.perf_counter() - start, os.times()
    return wall, sum(after[:4]) - sum(before[:4])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--size", type=int, default=640, help="pixels, of the longer side")
    parser.add_argument("--side", type=int, default=224, help="pixels, of stored images")
    parser.add_argument("--format", default="jpeg", choices=["png", "jpeg", "webp"])
    parser.add_argument("--repetitions", type=int, default=2)
    options = parser.parse_args()
    found: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_archives(folder / "source", options.images, options.size)
        settings = {
            "source": {"kind": "webdataset", "path": str(folder / "source")},
            "image_size": options.side,
            "storage": {"format": options.format},
        }
        config = IngestionConfig.model_validate(settings)
        for number in range(options.repetitions):
            ways = {
                "alone": lambda: alone(folder / "source", config),
                "ingestion": lambda number=number: ingest(config, 0, folder / f"data-{number}"),
            }
            for name, way in ways.items():
                found[name] = min(found.get(name, (np.inf, np.inf)), timed(way))
    print(json.dumps({name: [round(seconds, 2) for seconds in both] for name, both in found.items()}))
    print("| | Images a second | Rate against alone | Seconds of the processor |\n| --- | --- | --- | --- |")
    for name, (wall, cpu) in found.items():
        print(f"| {name} | {options.images / wall:.0f} | {found['alone'][0] / wall:.0%} | {cpu:.1f} |")


if __name__ == "__main__":
    main()
