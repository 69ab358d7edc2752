"""Initial weights (4m-facts §3): Xavier-uniform with fused matrices taken apart, N(0, std) embeddings, norms 1, biases 0."""

import torch
from torch import nn

from fourfold.model.config import ModelConfig
from fourfold.seeds import torch_generator

FUSED_PARTS = {"qkv": 3, "kv": 2}  # Xavier looks at each part's own fan-out


def initialize(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Fill all parameters in place; each one's numbers depend on (seed, its name) only, not on the other parts of the model."""
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            _fill(path, parameter, config, torch_generator(seed, "initialisation", path))


def _fill(path: str, parameter: nn.Parameter, config: ModelConfig, generator: torch.Generator) -> None:
    owner, _, kind = path.rpartition(".")
    if "norm" in owner.rpartition(".")[2]:
        parameter.fill_(1.0 if kind == "weight" else 0.0)
    elif kind == "bias":
        parameter.zero_()
    elif kind == "weight":
        for part in parameter.chunk(_num_parts(owner.rpartition(".")[2], config), dim=0):
            nn.init.xavier_uniform_(part, generator=generator)
    else:  # tables, modality vectors, mask token
        parameter.normal_(std=config.embedding_std, generator=generator)


def _num_parts(layer: str, config: ModelConfig) -> int:
    if layer == "up" and config.gated_mlp:
        return 2
    return FUSED_PARTS.get(layer, 1)
