"""One rank of several that update a codebook together; run as a script: `codebook_rank.py rank world rendezvous folder`.

Reads `latents.npy` (steps, batch, tokens, width) from the folder, takes its share of each batch, and writes codes and
counts.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from fourfold.seeds import torch_generator
from fourfold.tokenizers.networks.codebook import CosineCodebook, EuclideanCodebook

WIDTH, NUM_CODES = 6, 32
KINDS = {
    "cosine": lambda: CosineCodebook(NUM_CODES, WIDTH, 0.9, dead_code_threshold=0.5),
    "distant": lambda: CosineCodebook(NUM_CODES, WIDTH, 0.9, dead_code_threshold=0.5, replacement="distant"),
    "split": lambda: CosineCodebook(NUM_CODES, WIDTH, 0.9, dead_code_threshold=0.5, replacement="split"),
    "euclidean": lambda: EuclideanCodebook(NUM_CODES, WIDTH, 0.9, dead_code_threshold=0.5),
}


def updated(latents: np.ndarray, rank: int, world: int) -> dict[str, np.ndarray]:
    """Return codes, counts and numbers of replaced codes of every kind, after some steps on this rank's latents."""
    found = {}
    for kind, make in KINDS.items():
        codebook, replaced = make(), []
        codebook.codes_KD.copy_(
            torch.nn.functional.normalize(torch.randn(NUM_CODES, WIDTH, generator=torch_generator(0, kind)))
        )
        if kind == "euclidean":
            codebook.sums_KD.copy_(codebook.codes_KD)
        codebook.counts_K.fill_(0.6)
        for step, batch in enumerate(latents):
            mine = torch.from_numpy(np.array_split(batch, world)[rank])
            replaced.append(codebook.update(mine, codebook(mine).tokens, torch_generator(0, kind, step)))
        found |= {f"{kind}_codes": codebook.codes_KD.numpy(), f"{kind}_counts": codebook.counts_K.numpy()}
        found[f"{kind}_replaced"] = np.array(replaced)
    return found


def main() -> None:
    rank, world, rendezvous, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    torch.set_num_threads(1)
    if world > 1:
        distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
        latents = torch.zeros(1, 1, WIDTH)
        codebook = CosineCodebook(NUM_CODES, WIDTH, dead_code_threshold=1)
        try:
            codebook.update(latents, codebook(latents).tokens)
        except ValueError as error:
            assert "same seed on each" in str(error)
        else:
            raise AssertionError("Ranks that would draw apart were not refused.")
    np.savez(folder / f"rank{rank}of{world}.npz", **updated(np.load(folder / "latents.npy"), rank, world))
    if world > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
