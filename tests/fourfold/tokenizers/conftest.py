"""A tiny data set of rendered scenes as shards, and tokenizers trained on it for a few steps."""

from pathlib import Path

import numpy as np
import pytest

from fourfold.data.shards import ShardSet, finish_split, write_columns
from fourfold.scenes.world import CLASS_TABLE, ScenesConfig, caption, render, scene
from fourfold.seeds import numpy_generator
from fourfold.tokenizers.config import TokenizersConfig
from fourfold.tokenizers.networks.config import VisualTokenizerConfig
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.tokenizers.training.tokenizer_set import train_tokenizers
from fourfold.training.run_context import RunContext

SIZE, GRID, NUM_SAMPLES, SAMPLES_PER_SHARD = 32, 4, 24, 12
LABELS = ("depth", "normal", "semseg", "clip", "clip_global", "det")


def tiny_config(**changes) -> TokenizersConfig:
    visual = VisualTokenizerConfig(
        codebook_size=16, latent_width=4, width=16, fine_width=8, unquantized_steps=2, steps=6, decoder_steps=2, batch_size=8
    ).model_copy(update=changes)
    names = ("rgb", "depth", "normal", "semseg", "clip")
    return TokenizersConfig(grid=(GRID, GRID), visual=dict.fromkeys(names, visual), batch_size=5)


def tiny_samples(split: str) -> dict[str, list]:
    """Return every label of a few scenes; features are projections of coarse colors."""
    config = ScenesConfig(image_size=SIZE)
    scenes = [scene(0, split, index, config) for index in range(NUM_SAMPLES)]
    seen = render(scenes, config)
    coarse = seen.rgb.reshape(NUM_SAMPLES, GRID, SIZE // GRID, GRID, SIZE // GRID, 3).mean((2, 4)) / 255
    features = coarse @ numpy_generator(0, "features").normal(size=(3, 6))
    boxes = [
        [
            {"box": seen.boxes[row, slot].tolist(), "class_name": thing.shape, "score": 1.0}
            for slot, thing in enumerate(one.objects)
        ]
        for row, one in enumerate(scenes)
    ]
    return {
        "rgb": list(seen.rgb),
        "caption": [caption(one) for one in scenes],
        "depth": list(seen.depth.astype(np.float16)),
        "normal": list(np.rint(seen.normal * 127.5 + 127.5).astype(np.uint8)),
        "semseg": list(seen.semseg),
        "clip": list(features.astype(np.float16)),
        "clip_global": list(features.mean((1, 2)).astype(np.float16)),
        "det": [{"instances": found} for found in boxes],
    }


def write_split(root: Path, split: str, samples: dict[str, list], names: tuple[str, ...]) -> None:
    keys = [f"{split}-{index:06d}" for index in range(NUM_SAMPLES)]
    for number, start in enumerate(range(0, NUM_SAMPLES, SAMPLES_PER_SHARD)):
        part = slice(start, start + SAMPLES_PER_SHARD)
        columns = {name: zip(keys[part], samples[name][part], strict=True) for name in names}
        write_columns(root, split, f"shard-{number:05d}.tar", columns)
    finish_split(root, split, names, class_tables={"semseg": CLASS_TABLE} if "semseg" in names else None)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> tuple[ShardSet, ShardSet]:
    """Return images with captions, and labels, for the splits train and val."""
    root = tmp_path_factory.mktemp("tokenizer_world")
    for split in ("train", "val"):
        samples = tiny_samples(split)
        write_split(root / "shards", split, samples, ("rgb", "caption"))
        write_split(root / "labels", split, samples, LABELS)
    return ShardSet(root / "shards"), ShardSet(root / "labels")


@pytest.fixture(scope="session")
def tokenizers(world, tmp_path_factory) -> TokenizerSet:
    return train_tokenizers(*world, tiny_config(), RunContext(0, tmp_path_factory.mktemp("tokenizers")))
