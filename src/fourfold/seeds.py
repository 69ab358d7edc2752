"""Every random number of the project comes from here: a seed is a pure function of (seed, stage, split, epoch, index, ...).

No global state, no clock, no hash order and no worker count enters, so the same path gives the same stream everywhere.
"""

import hashlib
import json

import numpy as np
import torch


def derive_seed(seed: int, *path: str | int) -> int:
    """Return a 63-bit seed for one place in the work, e.g. `derive_seed(0, "scenes", "train", 17)`.

    BLAKE2b over the JSON of the path: stable over processes, machines and Python versions, unlike `hash()`.
    """
    text = json.dumps([seed, *path], separators=(",", ":"))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_generator(seed: int, *path: str | int) -> np.random.Generator:
    """Return an independent NumPy generator for one place in the work."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, *path)))


def torch_generator(seed: int, *path: str | int) -> torch.Generator:
    """Return an independent CPU torch generator for one place in the work."""
    return torch.Generator().manual_seed(derive_seed(seed, *path))
