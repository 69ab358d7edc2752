"""A copy of this repository with an environment whose whole run takes seconds, so that it can be repeated and killed often."""

from pathlib import Path
from typing import Any

import yaml
from checkout import clone

ENVIRONMENT = "tiny"
VQVAE = {"codebook_size": 16, "width": 16, "fine_width": 8, "unquantized_steps": 2, "steps": 4, "decoder_steps": 1}
PARAMETERS: dict[str, Any] = {
    "num_threads": 1,
    "ingestion": {
        "source": {
            "num_samples": dict.fromkeys(("annotated", "val", "test", "transfer_train", "transfer_val", "transfer_test"), 16)
            | {"train": 48},
            "images_per_shard": 16,
        },
        "samples_per_shard": 16,
    },
    "pseudo_labeling": {
        "teachers": {"scene_network": {"fit": {"steps": 4}}, "mini_clip": {"fit": {"steps": 2, "batch_size": 16}}}
    },
    "tokenizer_training": {"visual": dict.fromkeys(("rgb", "depth", "normal", "semseg", "clip"), VQVAE)},
    "pretraining": {
        "model": {"dim": 32, "encoder_depth": 1, "decoder_depth": 1, "num_heads": 2},
        "batch_size": 8,
        "total_tokens": 9216,  # 8 steps
        "warmup_tokens": 1152,
        "loop": {"log_every": 2, "validate_every": 4, "checkpoint_every": 2},
    },
    "finetuning": {
        "num_labels": [8],
        "num_seeds": 1,
        "steps": 2,
        "num_selection": 10,
        "num_test": 10,
        "lr_multipliers": {"pretrained": [1.0], "scratch": [1.0], "baseline": [1.0]},
    },
    "evaluation": {"replicates": 10, "gallery_samples": 1},
}


def tiny_clone(target: Path, **parameters: Any) -> Path:
    """Copy the files that git tracks, in their current state, into a new repository with the tiny environment.

    `parameters` replace whole sections of it.
    """
    text = yaml.safe_dump(PARAMETERS | parameters, sort_keys=False)
    return clone(target, files={f"conf/{ENVIRONMENT}/parameters.yml": text})
