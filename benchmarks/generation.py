"""Generation with caches against the same model that recomputes everything, in one run.

    OMP_NUM_THREADS=2 python benchmarks/generation.py

The model has the modalities of 4M-7 with released vocabularies at 224 pixels, and random weights. `caption` generates many
tokens greedily; the comparison runs encoder, decoder and the complete prefix at every step (only each `--every`th is run, and
must give the same token). `depth` generates depth from RGB in one ROAR step, greedily and with a nucleus (temperature 0.01,
top-p 0.8); the comparison is one forward pass of encoder, decoder and head. Times are the best of interleaved repeats.
"""

import argparse
import dataclasses
import json
import platform
import time
from collections.abc import Callable

import torch
from torch import Tensor

from fourfold.generation.conditions import visible_batch, with_targets
from fourfold.generation.config import GenerationConfig, TargetConfig
from fourfold.generation.decoding import SpecialTokenIds, generate_tokens
from fourfold.modalities import TOKEN_MODALITIES
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.fourm import FourM
from fourfold.seeds import torch_generator

NEVER = SpecialTokenIds(end=-1, sentinels=(-2, 5))  # texts end only at their last token


def released_config(size: str) -> ModelConfig:
    """Return 4M-7 at 224 pixels."""
    modalities = []
    for entry in TOKEN_MODALITIES.values():
        if entry.kind in ("pixels", "grid") and entry.released_tokens == 196:
            shape: dict = {"grid": (14, 14)}
        elif entry.name in ("caption", "det"):
            shape = {"max_length": entry.released_tokens}
        else:
            continue
        modalities.append(ModalityConfig(name=entry.name, kind=entry.kind, vocabulary_size=entry.released_vocabulary, **shape))
    return ModelConfig.model_validate({"size": size, "modalities": modalities})


@torch.inference_mode()
def recomputed_token(model: FourM, conditions: dict[str, Tensor], before: Tensor) -> Tensor:
    """Return the greedy token after `before` (B, T), with encoder, decoder and the complete prefix computed again."""
    ids = torch.cat([torch.full_like(before[:, :1], NEVER.first_sentinel), before], dim=1)
    batch = visible_batch(conditions, model.config, len(ids), model.device)
    asked = dataclasses.replace(
        batch,
        target_modality_BM=torch.full_like(ids, model.config.index("caption")),
        target_position_BM=torch.arange(ids.shape[1], device=ids.device).expand_as(ids),
        target_input_BM=ids,
        target_id_BM=ids,
    )
    return model.logits(model.decode(asked, model.encode(asked))[:, -1], "caption").argmax(-1)


@torch.inference_mode()
def forward(model: FourM, conditions: dict[str, Tensor], head: bool) -> Tensor:
    """Run encoder and decoder once for all positions of the depth grid, with or without the head."""
    batch_size = len(conditions["rgb"])
    positions = torch.arange(model.config.modality("tok_depth").num_positions, device=model.device).expand(batch_size, -1)
    batch = with_targets(
        visible_batch(conditions, model.config, batch_size, model.device), model.config.index("tok_depth"), positions
    )
    hidden = model.decode(batch, model.encode(batch))
    return model.logits(hidden, "tok_depth") if head else hidden


def best(work: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return seconds of each function: the best of interleaved repeats, which other processes disturb least."""
    spent: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats + 1):  # the first repeat warms up
        for name, piece in work.items():
            start = time.perf_counter()
            piece()
            spent[name].append(time.perf_counter() - start)
    return {name: min(times[1:]) for name, times in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="Ti")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--every", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7, help="of the parts that take a second")
    parser.add_argument(
        "--profile", action="store_true", help="print the operations of cached captions that take most time, and stop"
    )
    options = parser.parse_args()
    model = FourM(released_config(options.size), 0).eval()
    side = 14 * model.config.patch_size
    pixels = torch.randint(256, (options.batch, side, side, 3), generator=torch_generator(0, "benchmark"))
    conditions = {"rgb": pixels.to(torch.uint8)}
    greedy = GenerationConfig(sequences=TargetConfig(max_tokens=options.tokens))
    nucleus = GenerationConfig(grids=TargetConfig(temperature=0.01, top_p=0.8))

    def generated(target: str, config: GenerationConfig) -> Tensor:
        return generate_tokens(model, conditions, [target], range(options.batch), config, NEVER)[target]

    if options.profile:
        generated("caption", greedy)
        with torch.profiler.profile() as profile:
            generated("caption", greedy)
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=20, max_name_column_width=50))
        return
    work: dict[str, Callable[[], object]] = {
        "depth": lambda: generated("tok_depth", greedy),
        "depth, nucleus": lambda: generated("tok_depth", nucleus),
        "forward": lambda: forward(model, conditions, head=True),
        "forward without head": lambda: forward(model, conditions, head=False),
    }
    seconds = best(work, options.repeats) | best({"caption": lambda: generated("caption", greedy)}, 2)
    written = generated("caption", greedy)
    places, same, began = list(range(options.every // 2, options.tokens, options.every)), [], time.perf_counter()
    for place in places:
        same.append(recomputed_token(model, conditions, written[:, :place]) == written[:, place])
    seconds["caption, recomputed"] = (time.perf_counter() - began) * options.tokens / len(places)
    ratios = {
        "caption tokens/s": seconds["caption, recomputed"] / seconds["caption"],
        "depth, one ROAR step": seconds["depth"] / seconds["forward"],
        "depth, one ROAR step, nucleus": seconds["depth, nucleus"] / seconds["forward"],
    }
    print(f"{'':24}{'seconds':>9}{'tokens/s':>10}")
    for name, spent in seconds.items():
        rate = f"{options.batch * options.tokens / spent:10.0f}" if "caption" in name else ""
        print(f"{name:24}{spent:9.3f}{rate}")
    for (name, ratio), goal in zip(ratios.items(), ("≥ 5", "≤ 1.15", "≤ 1.15"), strict=True):
        print(f"{name:32}{ratio:7.2f} ×   target {goal}")
    report = {"size": options.size, "batch": options.batch, "tokens": options.tokens, "repeats": options.repeats}
    report |= {"same_tokens": round(float(torch.stack(same).float().mean()), 4)}
    report |= {"seconds": {k: round(v, 4) for k, v in seconds.items()}, "ratios": {k: round(v, 3) for k, v in ratios.items()}}
    print(json.dumps(report | {"threads": torch.get_num_threads(), "machine": platform.machine(), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
