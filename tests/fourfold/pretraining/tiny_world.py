"""A data set of a few samples for the loader and for pretraining; pixels and depth tokens identify the sample."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.masking.config import MaskingConfig, MixtureComponent
from fourfold.model.config import ArchitectureConfig
from fourfold.pretraining.config import PretrainConfig, PretrainLoopConfig
from fourfold.seeds import numpy_generator
from fourfold.training.config import LoopConfig
from fourfold.training.optimizers import OptimizerConfig

TOKENS = ("tok_depth", "tok_semseg", "caption", "det")
PER_SHARD = 6


class TinyText:
    eos_id, sentinel_ids = 3, list(range(4, 20))


class TinyTokenizers:
    """The part of a TokenizerSet that pretraining uses."""

    text, grid = TinyText(), (2, 2)
    vector_widths: ClassVar[dict[str, int]] = {}

    def grids(self) -> dict[str, tuple[int, int]]:
        return {"tok_depth": self.grid, "tok_semseg": self.grid}

    def pixel_sides(self) -> tuple[int, ...]:
        return ()

    def vocabulary_sizes(self) -> dict[str, int]:
        return {"tok_depth": 400, "tok_semseg": 9, "caption": 60, "det": 60}

    def lengths(self) -> dict[str, int]:
        return {"tok_depth": 4, "tok_semseg": 4, "caption": 8, "det": 10}

    def digest(self) -> str:
        return "tiny"


def write_world(root: Path, num_train: int = 40, num_val: int = 12, num_crops: int = 1) -> tuple[ShardSet, ShardSet]:
    """Sample i has pixels of value i, depth tokens i, and random other tokens that repeat a pattern."""
    for split, count in (("train", num_train), ("val", num_val)):
        for shard, start in enumerate(range(0, count, PER_SHARD)):
            numbers = range(start, min(count, start + PER_SHARD))
            rng = numpy_generator(0, "tiny world", split, shard)
            columns = {name: [] for name in (*TOKENS, "crop_settings")}
            for number in numbers:
                key, color = f"{split}-{number:04d}", int(rng.integers(5))
                caption = [40 + color, 41 + color, 42][: int(rng.integers(1, 4))]
                rows = {
                    "tok_depth": [number] * 4,
                    "tok_semseg": [color] * 4,
                    "caption": caption + [0] * (8 - len(caption)),
                    "det": [50, 51, 52, 53, 54 + color] + [0] * 5,
                }
                for name, row in rows.items():
                    columns[name].append((key, np.tile(np.array(row, np.int16), (num_crops, 1))))
                columns["crop_settings"].append((key, np.tile(np.int32([0, 0, 8, 8, 0]), (num_crops, 1))))
            pixels = [(f"{split}-{number:04d}", np.full((8, 8, 3), number, np.uint8)) for number in numbers]
            write_columns(root / "tokens", split, shard_name(shard), columns)
            write_columns(root / "images", split, shard_name(shard), {"rgb": pixels})
        finish_split(root / "tokens", split, [*TOKENS, "crop_settings"])
        finish_split(root / "images", split, ["rgb"])
    return ShardSet(root / "tokens"), ShardSet(root / "images")


def tiny_config(**changes: object) -> PretrainConfig:
    """Return 18 steps of 3 samples, with checkpoints that fall between validations; `changes` may name fields of the loop."""
    everything = dict.fromkeys(TOKENS, 0.5)
    masking = MaskingConfig(
        components=(
            MixtureComponent(alpha_in={"rgb": 1000.0}, alpha_target=everything),
            MixtureComponent(alpha_in={"rgb": 0.5, **everything}, alpha_target=everything),
        ),
        input_tokens=8,
        target_tokens=10,
    )
    settings = {
        "model": ArchitectureConfig(dim=16, encoder_depth=1, decoder_depth=1, num_heads=2, patch_size=4, embedding_std=0.5),
        "masking": masking,
        "optimizer": OptimizerConfig(),
        "precision": "fp32",  # exact comparisons must not depend on what `auto` means on this machine
        "batch_size": 3,
        "total_tokens": 18 * 3 * 18,
        "warmup_tokens": 3 * 3 * 18,
        "shards_at_once": 2,
        "validation_samples": 9,
    }
    loop = {"average_decay": 0.9, "log_every": 4, "validate_every": 7, "checkpoint_every": 5}
    loop |= {name: changes.pop(name) for name in LoopConfig.model_fields if name in changes}
    return PretrainConfig(**settings | changes, loop=PretrainLoopConfig(**loop))
