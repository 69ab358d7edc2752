"""Where the time of a pretraining step goes: masking, forward and backward, clipping, Muon, AdamW, averaging.

    OMP_NUM_THREADS=2 python benchmarks/training.py --dim 128 --batch 16

Milliseconds of CPU time, the second best of some repeats, which other work on the machine disturbs less than wall time.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from model import small_config
from torch import nn

from fourfold.masking.config import TOKENS, MaskingConfig, MixtureComponent
from fourfold.masking.masker import Masker
from fourfold.masking.spans import SentinelIds
from fourfold.model.config import ModelConfig
from fourfold.model.fourm import FourM
from fourfold.seeds import numpy_generator
from fourfold.training.optimizers import OptimizerConfig, build_optimizer
from fourfold.training.state import WeightAverage


def milliseconds(work: Callable[[], Any], repeats: int) -> float:
    work()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(1e3 * (time.process_time() - start))
    return sorted(spent)[1]


def default_masking() -> MaskingConfig:
    """The mixture of the default of `make run`."""
    all_modalities = dict.fromkeys(TOKENS, 0.5)
    caption = dict.fromkeys(("rgb", *TOKENS), 0.05) | {"caption": 5.0}
    components = (
        MixtureComponent(weight=0.5, alpha_in={"rgb": 1000.0}, alpha_target=all_modalities),
        MixtureComponent(weight=0.3, alpha_in={"rgb": 0.5, **all_modalities}, alpha_target=all_modalities),
        MixtureComponent(weight=0.2, alpha_in=caption, alpha_target=all_modalities, keep="all"),
    )
    return MaskingConfig(components=components, input_tokens=64, target_tokens=80)


def random_samples(config: ModelConfig, count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Whole samples: full grids, sequences of a third to all of their length, pixels."""
    rng = numpy_generator(0, "benchmark")
    tokens = {}
    for modality in config.modalities:
        if modality.kind == "pixels":
            continue
        ids = rng.integers(40, modality.vocabulary_size, (count, modality.num_positions - 3 * (modality.kind == "sequence")))
        if modality.kind == "sequence":
            ids *= np.arange(ids.shape[1]) < rng.integers(ids.shape[1] // 3, ids.shape[1] + 1, (count, 1))
        tokens[modality.name] = ids.astype(np.int16)
    return tokens, rng.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, nargs="+", default=[128, 192])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    for dim in options.dim:
        config = small_config(dim)
        model, optimizer_config = FourM(config, 0), OptimizerConfig()
        optimizer, average = build_optimizer(model, optimizer_config), WeightAverage(model, 0.99)
        masker = Masker(default_masking(), config, SentinelIds(3, tuple(range(5, 40))))
        samples, per_mask = random_samples(config, 64), 64 / options.batch
        batch = masker(*samples, numpy_generator(0, "masking"))[: options.batch]
        work: dict[str, Callable[[], Any]] = {
            "masking": lambda masker=masker, samples=samples: masker(*samples, numpy_generator(0, "masking")),
            "forward_backward": lambda model=model, batch=batch: model(batch).total.backward(),
            "clipping": lambda optimizer=optimizer: nn.utils.clip_grad_norm_(optimizer.parameters, 1.0),
            "muon": lambda optimizer=optimizer: optimizer.rules["muon"].step(1e-6),
            "adamw": lambda optimizer=optimizer: optimizer.rules["adamw"].step(1e-6),
        }
        found = {name: milliseconds(part, options.repeats) for name, part in work.items()}
        found["masking"] /= per_mask
        whole = sum(found.values())
        found["averaging"] = milliseconds(lambda average=average: average.update(9), options.repeats)
        report: dict[str, Any] = {"dim": dim, "batch": options.batch, "threads": torch.get_num_threads()}
        report |= {f"{name}_ms": round(value, 2) for name, value in found.items()}
        print(json.dumps(report | {f"{name}_share": round(found[name] / whole, 3) for name in ("masking", "muon")}))


if __name__ == "__main__":
    main()
