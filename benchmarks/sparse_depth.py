"""What sparse depth as a partial input gives, on the test scenes of a finished default run, whose depth is known exactly.

    python benchmarks/sparse_depth.py                 # 200 scenes of data/

Half of the pixels in the lower half of each image are measured without error, as from LiDAR above dense. Prints the mean
relative error of depth (AbsRel) without and with these measurements: in all pixels, in patches that got a token, and in the
others; for images as they are, at a tenth of their brightness, and with noise of 60 levels.
"""

import argparse
import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fourfold.data.shards import ShardSet
from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.conditions import MISSING
from fourfold.generation.sparse_depth import sparse_depth_tokens

MEASURED = 0.5  # of the pixels in the lower half
NOISE = 60  # levels


def read(folder: Path, name: str, count: int) -> np.ndarray:
    """Return the first values of one label of the test split."""
    shards = ShardSet(folder)
    samples = (sample[name] for shard in shards.shard_names("test") for sample in shards.read("test", [name], shard))
    return np.stack(list(islice(samples, count)))


def damaged(rgb: np.ndarray) -> dict[str, np.ndarray]:
    """Return the images as they are, and what is left of them at night and with a bad sensor."""
    noise = np.random.default_rng(1).normal(0, NOISE, rgb.shape)
    return {
        "as they are": rgb,
        "a tenth as bright": (rgb * 0.1).astype(np.uint8),
        "noise": np.clip(rgb + noise, 0, 255).astype(np.uint8),
    }


def errors(predicted: np.ndarray, truth: np.ndarray, given: np.ndarray) -> dict[str, float]:
    """Return AbsRel, averaged over pixels."""
    relative = np.abs(predicted.astype(np.float64) - truth) / truth
    parts = {"all": np.ones_like(given), "given": given, "others": ~given}
    return {name: round(float(relative[part].mean()), 4) for name, part in parts.items()}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="of a finished run of rendered scenes")
    parser.add_argument("--samples", type=int, default=200)
    options = parser.parse_args(arguments)
    model = AnyToAny.load(options.data / "04_models/any_to_any")
    rgb = read(options.data / "01_raw/shards", "rgb", options.samples)
    truth = read(options.data / "01_raw/truth", "depth", options.samples).astype(np.float64)
    is_measured = np.random.default_rng(0).random(truth.shape) < MEASURED
    is_measured[:, : truth.shape[1] // 2] = False
    tokens = sparse_depth_tokens(model, list(np.where(is_measured, truth, 0).astype(np.float32)))
    grid = model.model.config.modality(model.target_name("depth")).grid or (1, 1)
    given = (tokens != MISSING).reshape(-1, *grid).repeat(truth.shape[1] // grid[0], 1).repeat(truth.shape[2] // grid[1], 2)
    found = {}
    for name, images in damaged(rgb).items():
        alone = model.predict({"rgb": images}, ["depth"])["depth"]
        helped = model.predict({"rgb": images, "tok_depth": tokens}, ["depth"])["depth"]
        found[name] = {"alone": errors(alone, truth, given), "with_sparse_depth": errors(helped, truth, given)}
        pairs = ((part, error, found[name]["with_sparse_depth"][part]) for part, error in found[name]["alone"].items())
        print(f"{name:20}" + "   ".join(f"{part} {before:.3f} -> {after:.3f}" for part, before, after in pairs))
    return {"samples": len(rgb), "given_share": round(float(given.mean()), 4), "abs_rel": found}


if __name__ == "__main__":
    print(json.dumps(main()))
