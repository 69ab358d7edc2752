"""Samples per second from local shards, masked: modalities of 4M-7 at 224 pixels, nothing cached between epochs.

    OMP_NUM_THREADS=2 python benchmarks/loading.py --workers 0 1 2

Shards are first written into a temporary folder. Prints one JSON line for each number of workers, then a table.
"""

import argparse
import json
import os
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
from machine import cpu_name
from step import SENTINELS, released_config

from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.masking.config import MaskingConfig
from fourfold.masking.masker import Masker
from fourfold.masking.spans import SentinelIds
from fourfold.model.config import ModelConfig
from fourfold.pretraining.loader import CROP_SETTINGS, BatchOrder, Reader, TokenLoader, TokenSplit
from fourfold.seeds import numpy_generator


def write_shards(
    root: Path, config: ModelConfig, num_shards: int, per_shard: int, num_crops: int = 10
) -> tuple[ShardSet, ShardSet]:
    """Write random tokens in ten crops, as 4M stores them, and images that PNG compresses as real ones."""
    height, width = config.pixel_sizes["rgb"]
    for shard in range(num_shards):
        rng, keys = numpy_generator(0, "shards", shard), [f"s{shard:03d}-{index:04d}" for index in range(per_shard)]
        columns: dict[str, list] = {}
        for modality in config.modalities:
            if modality.kind != "pixels":
                shape = (per_shard, num_crops, modality.num_positions)
                ids = rng.integers(204, min(modality.vocabulary_size, 2**15), shape).astype(np.int16)
                columns[modality.name] = list(zip(keys, ids, strict=True))
        full_image = np.int32([0, 0, height, width, 0])
        columns[CROP_SETTINGS] = [(key, np.tile(full_image, (num_crops, 1))) for key in keys]
        write_columns(root / "tokens", "train", shard_name(shard), columns)
        smooth = rng.integers(0, 256, (per_shard, height // 8, width // 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
        write_columns(root / "images", "train", shard_name(shard), {"rgb": list(zip(keys, smooth, strict=True))})
    finish_split(root / "tokens", "train", list(columns))
    finish_split(root / "images", "train", ["rgb"])
    return ShardSet(root / "tokens"), ShardSet(root / "images")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--per-shard", type=int, default=128)
    options = parser.parse_args()
    config = released_config("Ti")
    masker = Masker(MaskingConfig(input_tokens=128, target_tokens=128), config, SentinelIds(3, SENTINELS))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tokens, images = write_shards(Path(folder), config, options.shards, options.per_shard)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.tar")) / options.shards / options.per_shard
        for workers in options.workers:
            loader = TokenLoader(
                TokenSplit(tokens, images, "train"),
                masker,
                BatchOrder(options.batch, seed=0),
                Reader(num_workers=workers, cache_bytes=0),
            )
            count = 2 * options.shards * options.per_shard // options.batch
            stream = iter(loader)
            next(stream)  # waits until workers have started
            began = time.perf_counter()
            for _ in islice(stream, count - 1):
                pass
            rate = (count - 1) * options.batch / (time.perf_counter() - began)
            row = {"workers": workers, "batch": options.batch, "samples_per_second": round(rate)}
            rows.append(row | {"megabytes_per_second": round(rate * size / 1e6, 1)})
            print(json.dumps({"benchmark": "loading", **rows[-1], "cores": os.cpu_count(), "cpu": cpu_name()}))
    print("\n".join("  ".join(f"{name} {value}" for name, value in row.items()) for row in rows))


if __name__ == "__main__":
    main()
