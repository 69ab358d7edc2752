"""Which words of a caption a pretrained model uses: how much worse it predicts an image if they are replaced.

    python benchmarks/words.py            # after `make run`; --env smoke for the model of that environment

Prints nats per token of caption → each image modality on `val` with the correct caption, and the increase when every color
(shape, size, side) is replaced by the next one. 0.00: the model ignores these words.
"""

import argparse
import dataclasses
import json

import torch

from fourfold.data.shards import ShardSet
from fourfold.generation.any_to_any import AnyToAny
from fourfold.masking.config import MaskingConfig, MixtureComponent
from fourfold.masking.masker import Masker
from fourfold.model.batch import MaskedBatch
from fourfold.pretraining.loader import BatchOrder, TokenLoader, TokenSplit, fixed_batches
from fourfold.pretraining.pretrain import sentinel_ids, validation_losses
from fourfold.scenes.world.vocabulary import COLORS, SHAPES
from fourfold_ops.cli.catalog import catalog_path

WORDS = {"color": COLORS, "shape": SHAPES, "size": ("large", "small"), "side": ("left", "right")}


def replaced(batch: MaskedBatch, ids: list[int]) -> MaskedBatch:
    """Return the batch with each of the word ids replaced by the next one in the list."""
    before, after = batch.input_token_BN, batch.input_token_BN.clone()
    for index, word in enumerate(ids):
        after[before == word] = ids[(index + 1) % len(ids)]
    return dataclasses.replace(batch, input_token_BN=after)


def losses(
    model: AnyToAny, target: str, shards: tuple[ShardSet, ShardSet], samples: int, words: dict[str, list[int]]
) -> dict[str, float]:
    component = MixtureComponent(alpha_in={"caption": 1000.0}, alpha_target={target: 1000.0}, keep="all")
    masking = MaskingConfig(components=(component,), input_tokens=64, target_tokens=64)
    masker = Masker(masking, model.model.config, sentinel_ids(model.tokenizers))
    batches = fixed_batches(TokenLoader(TokenSplit(*shards, "val"), masker, BatchOrder(16, seed=0)), samples)

    def loss(changed: list[MaskedBatch]) -> float:
        return validation_losses(model.model, changed, "fp32")["loss"]

    own = loss(batches)
    return {"own": own} | {kind: loss([replaced(b, ids) for b in batches]) - own for kind, ids in words.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", help="a folder of conf/, whose catalog names model and shards")
    parser.add_argument("--samples", type=int, default=192)
    options = parser.parse_args()
    folder = catalog_path("any_to_any", options.env)
    if not folder.is_dir():
        print(f"{folder} holds no model: run `make run` first. Nothing was measured.")
        return
    model = AnyToAny.load(folder)
    shards = (ShardSet(catalog_path("tokens", options.env)), ShardSet(catalog_path("shards", options.env)))
    words = {kind: [model.tokenizers.text.encode_caption(word)[0] for word in of_kind] for kind, of_kind in WORDS.items()}
    rows = {}
    print(f"{'caption →':12}" + "".join(f"{name:>9}" for name in ("own", *words)) + "   nats per token")
    for target in [m.name for m in model.model.config.modalities if m.kind == "grid"]:
        row = rows[target] = losses(model, target, shards, options.samples, words)
        print(f"{target:12}" + "".join(f"{value:9.3f}" for value in row.values()))
    print(json.dumps({"samples": options.samples, "threads": torch.get_num_threads(), "nats": rows}))


if __name__ == "__main__":
    main()
