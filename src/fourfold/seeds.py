"""Random generators of the project: each seed is a pure function of (seed, stage, split, epoch, index, ...).

No global state, clock, hash order or number of workers is involved, so equal paths give equal random numbers everywhere.
"""

import hashlib
import json

import numpy as np
import torch


def derive_seed(seed: int, *path: str | int) -> int:
    """Return a 63-bit seed for one use of randomness, e.g. `derive_seed(0, "scenes", "train", 17)`.

    Args:
        seed: the seed of the run.
        path: names and indices that identify the use. Changing one changes the random numbers of all earlier runs.
    """
    text = json.dumps([seed, *path], separators=(",", ":"))
    # BLAKE2b is stable over processes, machines and Python versions, unlike hash(); torch needs a signed 64-bit seed
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_generator(seed: int, *path: str | int) -> np.random.Generator:
    """Return an independent NumPy generator; see `derive_seed` for the arguments."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, *path)))


def torch_generator(seed: int, *path: str | int) -> torch.Generator:
    """Return an independent CPU torch generator; see `derive_seed` for the arguments."""
    return torch.Generator().manual_seed(derive_seed(seed, *path))
