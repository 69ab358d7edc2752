"""Time of masking a batch, relative to the training step that uses it; the target is at most 2 %.

    OMP_NUM_THREADS=2 python benchmarks/masking.py

The step: Ti (6 + 6 blocks of width 384), released vocabularies and grids, budgets of 128 + 128 tokens, batch 16; forward,
backward, clipping and AdamW. Masking draws masks for 64 samples at once, as the loader does, for the modalities of 4M-7 and of
4M-21 (both relative to the step of 4M-7, which is shorter). Times are CPU times, the second lowest of the repeats; that of the
step is divided by its threads.
"""

import argparse
import json
from typing import Any

import numpy as np
import torch
from machine import milliseconds
from torch import nn

from fourfold.masking.config import MaskingConfig, MixtureComponent
from fourfold.masking.masker import Masker
from fourfold.masking.spans import SentinelIds
from fourfold.modalities import FOUR_M_7, TOKEN_MODALITIES
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.fourm import FourM
from fourfold.seeds import numpy_generator
from fourfold.training.optimizers import OptimizerConfig, build_optimizer
from fourfold.training.precision import autocast

AT_ONCE, BATCH = 64, 16
SPECIAL = SentinelIds(3, tuple(range(5, 204)))


def model_of(names: tuple[str, ...]) -> ModelConfig:
    modalities = []
    for name in names:
        entry = TOKEN_MODALITIES[name]
        shape: dict[str, Any] = {"grid": entry.released_grid} if entry.released_grid else {"max_length": entry.released_tokens}
        width = None if entry.vector_width is None else 256  # 4096 would measure copying, not masking
        shape |= {"vocabulary_size": entry.released_vocabulary, "vector_width": width}
        modalities.append(ModalityConfig(name=name, kind=entry.kind, learned_positions=entry.learned_positions, **shape))
    return ModelConfig.model_validate({"size": "Ti", "modalities": modalities})


def samples_of(model: ModelConfig) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = numpy_generator(0, "benchmark")
    tokens: dict[str, np.ndarray] = {}
    for modality in model.modalities:
        length = modality.num_positions
        if modality.kind == "vectors":
            tokens[modality.name] = rng.normal(size=(AT_ONCE, length, modality.vector_width or 1)).astype(np.float16)
        elif modality.kind != "pixels":
            ids = rng.integers(300, modality.vocabulary_size, (AT_ONCE, length)).astype(np.int16)
            if modality.kind == "sequence":
                ids *= np.arange(length) < rng.integers(length // 8, length // 2, (AT_ONCE, 1))
            tokens[modality.name] = ids
    return tokens, rng.integers(0, 256, (AT_ONCE, 224, 224, 3), dtype=np.uint8)


def masking_of(names: tuple[str, ...]) -> MaskingConfig:
    if names == FOUR_M_7:
        return MaskingConfig()
    shown = dict.fromkeys(names, 0.5)
    targets = {name: 0.5 for name in names if not TOKEN_MODALITIES[name].input_only}
    rgb = MixtureComponent(alpha_in={"rgb": 1000.0}, alpha_target=targets)
    return MaskingConfig(components=(rgb, MixtureComponent(alpha_in=shown, alpha_target=targets)))


def step_milliseconds(repeats: int) -> float:
    """Return the time of a step of the 4M-7 model on all threads."""
    config = model_of(FOUR_M_7)
    model = FourM(config)
    optimizer = build_optimizer(model, OptimizerConfig(kind="adamw"))
    batch = Masker(MaskingConfig(), config, SPECIAL)(*samples_of(config), numpy_generator(0, "masking"))[:BATCH]

    def step() -> None:
        with autocast("auto", model.device):
            loss = model(batch).total
        loss.backward()
        nn.utils.clip_grad_norm_(optimizer.parameters, 1.0, foreach=True)
        optimizer.step(1e-6)

    return milliseconds(step, repeats) / torch.get_num_threads()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    training = step_milliseconds(options.repeats)
    for title, names in (("4M-7", FOUR_M_7), ("4M-21", tuple(TOKEN_MODALITIES))):
        config = model_of(names)
        samples, masker = samples_of(config), Masker(masking_of(names), config, SPECIAL)
        spent = milliseconds(lambda m=masker, s=samples: m(*s, numpy_generator(0, "masking")), 5 * options.repeats)
        masking = spent * BATCH / AT_ONCE
        row = {"modalities": title, "number": len(names), "batch": BATCH, "threads": torch.get_num_threads()}
        row |= {"masking_ms": round(masking, 2), "step_ms": round(training, 1), "share": round(masking / training, 5)}
        print(json.dumps(row | {"at_most": 0.02}))


if __name__ == "__main__":
    main()
