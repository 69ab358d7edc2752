"""Muon for the matrices inside the transformer's blocks, AdamW for everything else.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a matrix by its nearest
semi-orthogonal matrix, approximately. Why this is not `torch.optim`, measured for the default model on one core of an AVX2
machine:

- `torch.optim.Muon` takes 1,966 ms a step, `Muon` below 139 ms. It orthogonalizes one matrix at a time, in bfloat16; here all
  matrices of one shape share batched float32 products (`fourfold.training.newton_schulz`).
- AdamW is torch's own fused kernel, `torch.optim.adamw.adamw(fused=True)`. Only the object around it is not used: constructing
  any `torch.optim.Optimizer` imports torch's compiler, which takes as long as importing torch (6.7 s of CPU time), in every
  process of a run.

Cheaper variants of Muon (three minimax steps; q, k, v by head) equal the default in the mean over modalities at width 64, but
learn weak signals, such as colors in captions, far later at width 128. Without weight decay attention saturates within minutes.
Both experiments: docs/log.md.

Parameters may be sharded over processes (FSDP2). AdamW works element by element, so each process updates its shard. Muon needs
whole matrices: every process gathers and orthogonalizes each update, and applies its own rows.
"""

# K matrices of one shape, R rows, C columns

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from typing import Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.adamw import adamw

from fourfold.configuration import Config
from fourfold.model.layers import CrossAttention, FeedForward, SelfAttention
from fourfold.training.newton_schulz import orthogonalize
from fourfold.training.parallel import is_sharded, local, shard_like, whole_like


class OptimizerConfig(Config):
    """Optimizer and its hyperparameters. Learning rates are peaks; the schedule multiplies them."""

    kind: Literal["adamw", "muon"] = "muon"
    learning_rate: float = Field(default=1e-3, gt=0)  # of AdamW: embeddings, heads, norms; all parameters if kind is adamw
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)  # of AdamW; not for norms, biases and other vectors
    muon_learning_rate: float = Field(default=0.02, gt=0)
    muon_momentum: float = Field(default=0.95, ge=0, lt=1)
    muon_weight_decay: float = Field(default=0.0, ge=0)  # long runs need it; the default of torch.optim.Muon is 0.1
    newton_schulz_steps: Literal[3, 5] = 5  # 3: minimax polynomials, cheaper
    muon_per_head: bool = False  # orthogonalize q, k and v of each attention head separately: cheaper


def block_matrices(model: nn.Module, per_head: bool = True) -> dict[str, int]:
    """Return the names of the parameters that Muon updates, each with the number of matrices stored in it.

    These are the weights of the linear layers inside encoder and decoder blocks of 4M. Other models give an empty dictionary.
    """
    splits: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, SelfAttention | CrossAttention):
            heads = module.num_heads if per_head else 1
            parts = {"qkv": 3 * heads, "q": heads, "kv": 2 * heads, "out": 1}
            splits |= {f"{name}.{part}.weight": count for part, count in parts.items() if hasattr(module, part)}
        elif isinstance(module, FeedForward):
            splits |= {f"{name}.up.weight": 2 if module.gated else 1, f"{name}.down.weight": 1}
    return splits


class UpdateRule(Protocol):
    """An optimizer of some of the parameters."""

    parameters: dict[str, Tensor]
    state: dict[str, dict[str, Tensor]]  # kind of state → parameter name → tensor

    def step(self, lr_multiplier: float) -> None:
        """Update the parameters that have a gradient, with `lr_multiplier` times the peak learning rate."""


class Muon:
    """Orthogonalized Nesterov momentum. `splits`: the number of matrices stored in each parameter, along its rows.

    Kernels of convolutions (out, in, h, w) count as (out, in · h · w) matrices. The step size is lr · √max(1, R / C), as in the
    original code.
    """

    def __init__(self, parameters: dict[str, Tensor], splits: Mapping[str, int], config: OptimizerConfig) -> None:
        self.parameters, self.splits, self.config = parameters, splits, config
        self.state = {"momentum": _zeros_like(parameters)}

    @torch.no_grad()
    def step(self, lr_multiplier: float, only: Container[str] | None = None) -> None:
        """Update the matrices that have a gradient, or only some of them, by name."""
        chosen = self.parameters if only is None else [name for name in self.parameters if name in only]
        names = [name for name in chosen if self.parameters[name].grad is not None]
        if not names:
            return
        weights = [local(self.parameters[name]) for name in names]
        gradients = [local(self.parameters[name].grad) for name in names]
        momenta = [local(self.state["momentum"][name]) for name in names]
        rate = self.config.muon_learning_rate * lr_multiplier
        torch._foreach_lerp_(momenta, gradients, 1 - self.config.muon_momentum)
        updates = torch._foreach_lerp(gradients, momenta, self.config.muon_momentum)
        if self.config.muon_weight_decay:
            torch._foreach_mul_(weights, 1 - rate * self.config.muon_weight_decay)
        if not is_sharded(self.parameters[names[0]]):
            self._descend(names, weights, list(updates), rate)
            return
        for name, weight, update in zip(names, weights, updates, strict=True):
            step = torch.zeros(self.parameters[name].shape, dtype=weight.dtype, device=weight.device)
            self._descend([name], [step], [whole_like(update, self.parameters[name])], rate)
            weight.add_(shard_like(step, self.parameters[name]))

    def _descend(self, names: list[str], weights: list[Tensor], updates: list[Tensor], rate: float) -> None:
        """Subtract the orthogonalized updates from whole weights."""
        for matrices, directions in self._batches(names, weights, updates):
            directions_KRC = orthogonalize(_batch(directions), self.config.newton_schulz_steps).to(weights[0].dtype)
            scales = [rate * max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5 for matrix in matrices]
            steps = [
                step_RC if _is_wide(matrix) else step_RC.mT for matrix, step_RC in zip(matrices, directions_KRC, strict=True)
            ]
            torch._foreach_sub_(matrices, torch._foreach_mul(steps, scales))

    def _batches(
        self, names: list[str], weights: list[Tensor], updates: list[Tensor]
    ) -> Iterable[tuple[list[Tensor], list[Tensor]]]:
        """Return matrices (views of the weights) and their updates by shape, the latter transposed where R > C."""
        by_shape: dict[torch.Size, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
        for name, weight, update in zip(names, weights, updates, strict=True):
            count = self.splits[name]
            for weight_RC, update_RC in zip(_matrices(weight, count), _matrices(update, count), strict=True):
                turned = update_RC if _is_wide(update_RC) else update_RC.mT
                by_shape[turned.shape][0].append(weight_RC)
                by_shape[turned.shape][1].append(turned)
        return by_shape.values()


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019, arXiv 1711.05101), not applied to vectors."""

    def __init__(self, parameters: dict[str, Tensor], config: OptimizerConfig) -> None:
        self.parameters, self.config = parameters, config
        self.state = {"mean": _zeros_like(parameters), "square": _zeros_like(parameters)}
        self.state["count"] = {name: torch.zeros((), device=parameter.device) for name, parameter in parameters.items()}

    @torch.no_grad()
    def step(self, lr_multiplier: float) -> None:
        """Update the parameters that have a gradient."""
        for decay, is_decayed in ((self.config.weight_decay, True), (0.0, False)):
            names = [n for n, p in self.parameters.items() if p.grad is not None and (p.ndim >= 2) == is_decayed]
            if names:
                adamw(
                    [local(self.parameters[name]) for name in names],
                    [local(self.parameters[name].grad) for name in names],
                    [local(self.state["mean"][name]) for name in names],
                    [local(self.state["square"][name]) for name in names],
                    [],
                    [self.state["count"][name] for name in names],
                    fused=True,
                    amsgrad=False,
                    maximize=False,
                    beta1=self.config.betas[0],
                    beta2=self.config.betas[1],
                    eps=self.config.epsilon,
                    lr=self.config.learning_rate * lr_multiplier,
                    weight_decay=decay,
                )


def _zeros_like(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(tensor, requires_grad=False) for name, tensor in tensors.items()}


def _matrices(tensor: Tensor, count: int) -> tuple[Tensor, ...]:
    """Return views of the matrices stored in a parameter along its rows. Views, because an update of a copy would be lost."""
    return tensor.view(tensor.shape[0], -1).chunk(count)


def _is_wide(matrix_RC: Tensor) -> bool:
    return matrix_RC.shape[0] <= matrix_RC.shape[1]


def _batch(matrices: list[Tensor]) -> Tensor:
    """Return (K, R, C), in bfloat16 on GPUs and float32 elsewhere."""
    fast = torch.bfloat16 if matrices[0].device.type == "cuda" else torch.float32
    return torch.stack(matrices).to(fast)


class OptimizerSet:
    """One or two update rules that step together, with one learning rate schedule."""

    def __init__(self, rules: dict[str, UpdateRule]) -> None:
        self.rules = rules

    @property
    def parameters(self) -> list[Tensor]:
        """All trained parameters."""
        return [parameter for rule in self.rules.values() for parameter in rule.parameters.values()]

    def step(self, lr_multiplier: float = 1.0) -> None:
        """Update all parameters with `lr_multiplier` times the peak learning rates, then drop the gradients."""
        for rule in self.rules.values():
            rule.step(lr_multiplier)
        self.zero_grad()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the whole state as tensors by name (not copies)."""
        return {
            f"{rule_name}/{kind}/{name}": tensor
            for rule_name, rule in self.rules.items()
            for kind, tensors in rule.state.items()
            for name, tensor in tensors.items()
        }

    @torch.no_grad()
    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore the state that `state_tensors` returned.

        Raises:
            KeyError: A tensor is missing.
        """
        for name, tensor in self.state_tensors().items():
            local(tensor).copy_(shard_like(tensors[name], tensor))


def build_optimizer(
    model: nn.Module,
    config: OptimizerConfig,
    matrices: Mapping[str, int] | None = None,
    rates: Mapping[str, float] | None = None,
) -> OptimizerSet:
    """Return the optimizers of a model's trainable parameters.

    Call it after moving the model to its device.

    Args:
        model: The model; parameters with `requires_grad=False` are left out.
        config: The hyperparameters.
        matrices: Parameters for Muon and the number of matrices in each; default: `block_matrices(model)`. Unused if
            `config.kind` is adamw.
        rates: Multipliers of the learning rates by name of the parameter; 1 for others.
    """
    named: dict[str, Tensor] = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    matrices = block_matrices(model, config.muon_per_head) if matrices is None else matrices
    groups: dict[float, dict[str, Tensor]] = defaultdict(dict)
    for name, parameter in named.items():
        groups[(rates or {}).get(name, 1.0)][name] = parameter
    rules: dict[str, UpdateRule] = {}
    for rate, group in groups.items():
        suffix, scaled = ("", config) if rate == 1 else (f"@{rate:.6g}", _scaled(config, rate))
        chosen = {name: parameter for name, parameter in group.items() if name in matrices and config.kind == "muon"}
        rest = {name: parameter for name, parameter in group.items() if name not in chosen}
        if chosen:
            rules[f"muon{suffix}"] = Muon(chosen, matrices, scaled)
        if rest:
            rules[f"adamw{suffix}"] = AdamW(rest, scaled)
    return OptimizerSet(rules)


def _scaled(config: OptimizerConfig, rate: float) -> OptimizerConfig:
    names = ("learning_rate", "muon_learning_rate")
    return config.model_copy(update={name: getattr(config, name) * rate for name in names})
