"""Random weights of FID's Inception network, in the format in which pytorch-fid and torch-fidelity publish the real ones."""

import torch
from torch import Tensor

from fourfold.metrics.inception import Inception


def random_weights(seed: int = 0) -> dict[str, Tensor]:
    """Return tensors by name, with the classes, whose features are of similar size in all layers."""
    generator = torch.Generator().manual_seed(seed)
    found = Inception().state_dict()
    for name, tensor in found.items():
        if name.endswith("conv.weight"):
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith("bn.weight"):
            tensor.uniform_(0.8, 1.2, generator=generator)
        elif name.endswith(("bn.bias", "running_mean")):
            tensor.normal_(0, 0.1, generator=generator)
    return found | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
