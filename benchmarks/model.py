"""Forward and backward pass of small models by width, batch size and kind of attention: samples/s and share of the peak.

    OMP_NUM_THREADS=2 python benchmarks/model.py --dim 128 192 --batch 16 --attention sdpa

`benchmarks/default_step.py` measures the whole training step of the default run.
"""

import argparse
import json
from typing import Any

import torch
from machine import peak_gflops, seconds

from fourfold.model.batch import MaskedBatch
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.flops import training_flops
from fourfold.model.fourm import FourM
from fourfold.seeds import torch_generator


def small_config(dim: int = 128, **changes: Any) -> ModelConfig:
    """Return the model of the default run: eight modalities and pixels, grids of 8 × 8."""
    grids = {"tok_rgb": 1024, "tok_depth": 256, "tok_normal": 256, "tok_semseg": 256, "tok_clip": 512}
    modalities = [ModalityConfig(name="rgb", kind="pixels", grid=(8, 8))]
    modalities += [ModalityConfig(name=n, kind="grid", vocabulary_size=v, grid=(8, 8)) for n, v in grids.items()]
    modalities += [ModalityConfig(name=n, kind="sequence", vocabulary_size=700, max_length=40) for n in ("caption", "det")]
    shape = {"encoder_depth": 4, "decoder_depth": 4, "num_heads": dim // 64 or 1, "patch_size": 8, "patch_stem": "conv"}
    return ModelConfig.model_validate({"modalities": modalities, "dim": dim} | shape | changes)


def random_batch(config: ModelConfig, batch: int, inputs: int, targets: int, filled: float = 0.9, seed: int = 0) -> MaskedBatch:
    """Return random tokens: half of the samples see pixels only, 1 − `filled` of the slots is empty, targets are sorted."""
    generator = torch_generator(seed, "benchmark")
    draw = lambda high, *shape: torch.randint(high, shape, generator=generator)  # noqa: E731
    vocabulary = torch.tensor([m.vocabulary_size or 1 for m in config.modalities])
    places = torch.tensor([m.num_positions for m in config.modalities])

    def side(first: int, slots: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        modality = (first + draw(len(config.modalities) - first, batch, slots)).sort(dim=1).values
        return modality, draw(10**6, batch, slots) % places[modality], draw(10**6, batch, slots) % vocabulary[modality]

    modality, position, token = side(0, inputs)
    half = batch // 2
    modality[:half], token[:half], position[:half] = 0, 0, torch.arange(inputs) % places[0]
    modality[half:, int(filled * inputs) :] = -1
    target_modality, target_position, target = side(1, targets)
    target_modality[:, int(filled * targets) :] = -1
    height, width = (size * config.patch_size for size in config.modality("rgb").grid or (1, 1))
    pixels = draw(256, batch, height, width, 3).to(torch.uint8)
    return MaskedBatch(modality, position, token, target_modality, target_position, target, target, pixels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, nargs="+", default=[128])
    parser.add_argument("--batch", type=int, nargs="+", default=[16])
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--stem", default="conv")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds for each line")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    peak = peak_gflops()
    for dim in arguments.dim:
        config = small_config(dim, attention=arguments.attention, patch_stem=arguments.stem)
        model = FourM(config)
        for size in arguments.batch:
            batch = random_batch(config, size, 64, 80)

            def step(model: FourM = model, batch: MaskedBatch = batch) -> None:
                model.zero_grad(set_to_none=True)
                model(batch).total.backward()

            if arguments.profile:
                step()
                with torch.profiler.profile() as profile:
                    for _ in range(5):
                        step()
                print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=32, max_name_column_width=60))
            elapsed = seconds(step, arguments.budget)
            rate = training_flops(config, batch) / elapsed / 1e9
            row = {"dim": dim, "batch": size, "threads": torch.get_num_threads(), "ms": round(1e3 * elapsed, 1)}
            row |= {"samples/s": round(size / elapsed, 1), "GFLOP/s": round(rate), "peak": round(peak)}
            print(json.dumps(row | {"share": round(rate / peak, 2)}))


if __name__ == "__main__":
    main()
