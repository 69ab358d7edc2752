"""What a recipe changes in a pretrained model: rates by layer, stochastic depth, low-rank matrices, frozen weights."""

# R rank, I O inputs and outputs of a linear layer

import re

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fourfold.model.fourm import FUSED_PARTS, FourM
from fourfold.model.layers import CrossAttention, EncoderBlock, FeedForward, SelfAttention
from fourfold.seeds import torch_generator
from fourfold.transfer.recipes import LoraConfig, Recipe

EMBEDDINGS = ("place", "input_tokens", "patches", "further_patches", "vector_projection", "registers_RD")
AFTER_ENCODER = ("encoder_norm", "context_projection")


class LowRank(nn.Module):
    """Weight → weight + scale · up @ down, of which only `up` and `down` are trained."""

    def __init__(self, linear: nn.Linear, rank: int, config: LoraConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.scale = config.scale
        down_RI = torch.empty(rank, linear.in_features).normal_(std=1 / config.rank, generator=generator)
        self.down_RI = nn.Parameter(down_RI)
        self.up_OR = nn.Parameter(torch.zeros(linear.out_features, rank))  # so that nothing changes at first

    def forward(self, weight_OI: Tensor) -> Tensor:
        """Return the adapted weight (O, I)."""
        return weight_OI + self.scale * (self.up_OR @ self.down_RI)


def add_lora(model: FourM, config: LoraConfig, seed: int) -> None:
    """Freeze a model and add low-rank matrices to linear layers of its blocks, in place.

    The matrices are parametrizations of the weights (`torch.nn.utils.parametrize`), so every way of computing with a layer
    sees them. Initial values are those of the 4M code: N(0, 1 / rank) and zeros.

    Raises:
        ValueError: the rank is larger than that of a layer.
    """
    model.requires_grad_(False)
    for name, linear in adapted_layers(model, config).items():
        rank = config.rank * FUSED_PARTS.get(name.rpartition(".")[2], 1)
        limit = min(linear.in_features, linear.out_features)
        if rank > limit:
            raise ValueError(f"lora.rank {config.rank} makes {name} of rank {rank}; {limit} are allowed. Lower lora.rank.")
        low_rank = LowRank(linear, rank, config, torch_generator(seed, "transfer", "lora", name))
        parametrize.register_parametrization(linear, "weight", low_rank.to(linear.weight.device))


def adapted_layers(model: FourM, config: LoraConfig) -> dict[str, nn.Linear]:
    """Return the linear layers of the blocks that LoRA adapts, by name."""
    kinds = {"attention": (SelfAttention, CrossAttention), "mlp": (FeedForward,)}
    chosen = sum(kinds.values(), ()) if config.layers == "all" else kinds[config.layers]
    return {
        f"{name}.{child}": linear
        for name, module in model.named_modules()
        if isinstance(module, chosen)
        for child, linear in module.named_children()
        if isinstance(linear, nn.Linear)
    }


def merge_lora(model: nn.Module) -> None:
    """Replace adapted weights by plain ones of the same values, in place: a model as it was before `add_lora`."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def adapt(model: FourM, recipe: Recipe, seed: int) -> None:
    """Prepare a model for a recipe, in place."""
    if recipe.lora is not None:
        add_lora(model, recipe.lora, seed)
    elif recipe.probe:
        model.requires_grad_(False)
    set_drop_path(model, recipe.drop_path)


def set_drop_path(model: FourM, rate: float) -> None:
    """Set stochastic depth of the encoder: 0 in the first block, `rate` in the last, linear between (arXiv 1603.09382)."""
    depth = len(model.encoder)
    for index, block in enumerate(model.encoder):
        assert isinstance(block, EncoderBlock)
        block.drop_path = rate * index / max(1, depth - 1)


def layer_rates(learner: nn.Module, decay: float, with_decoder: bool) -> dict[str, float]:
    """Return the multiplier of the learning rate of every parameter: decay^(layers above it).

    Layers are counted as in BEiT (arXiv 2106.08254): embeddings 0, block i is i + 1, and heads and whatever else come last
    with the whole rate. In an encoder–decoder the decoder's blocks follow the encoder's.

    Args:
        learner: holds a `FourM` as `model`, or as a part of any depth.
        decay: rate of a block as a share of the next block's.
        with_decoder: whether the decoder is used.
    """
    model = next(module for module in learner.modules() if isinstance(module, FourM))
    prefix = next(f"{name}." if name else "" for name, module in learner.named_modules() if module is model)
    encoder, decoder = len(model.encoder), len(model.decoder) if with_decoder else 0
    last = encoder + decoder + 1

    def layer(name: str) -> int:
        if not name.startswith(prefix):
            return last
        part = name.removeprefix(prefix)
        if match := re.match(r"(encoder|decoder)\.(\d+)\.", part):
            return int(match[2]) + 1 + (encoder if match[1] == "decoder" else 0)
        if part.split(".")[0] in EMBEDDINGS:
            return 0
        return min(encoder + 1, last) if part.split(".")[0] in AFTER_ENCODER else last

    return {name: decay ** (last - min(layer(name), last)) for name, _ in learner.named_parameters()}
