"""The blocks of the transformer: pre-norm attention, cross-attention and SwiGLU (4M, arXiv 2312.06647, §2.1 and appendix).

Two custom autograd functions cover most of the time of a small model on a CPU. They keep fewer activations than autograd
would, convert each weight once per step, and pad the hidden layer to a width at which matrix products are fast.
"""

# B batch, N queries, M keys, T packed rows, D width, H hidden width of a feed-forward layer, E widths of several projections

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourfold.model.attention import attend
from fourfold.model.config import ModelConfig
from fourfold.model.packing import Packing

NORM_EPSILON = 1e-6  # as in the 4M code
KeyValues = Tensor  # (B, M, 2D): keys, then values, of one attention layer
# On a CPU hidden widths are padded to a multiple of this many numbers, a cache line of float32. At 341, the width of a model
# of dim 128, the products of the padded layer take 20 % less time, and a feed-forward layer 14 to 20 % less in all.
ALIGNMENT = 16


def layer_norm(dim: int, config: ModelConfig) -> nn.LayerNorm:
    """Return a LayerNorm with the epsilon of 4M, 1e-6."""
    return nn.LayerNorm(dim, eps=NORM_EPSILON, bias=config.norm_bias)


def linear_of_norm(linear: nn.Linear, norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Return linear(norm(x)). The backward pass recomputes norm(x) instead of storing it."""
    return _LinearOfNorm.apply(x, norm.weight, norm.bias, linear.weight, linear.bias)


def _product_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of matrix products: that of autocast where it is on, else that of `x`."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


class _LinearOfNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm_weight: Tensor, norm_bias: Tensor | None, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        dtype = _product_dtype(x)
        normed, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], norm_weight, norm_bias, NORM_EPSILON)
        converted = weight.to(dtype)
        ctx.save_for_backward(x, mean, rstd, norm_weight, norm_bias, weight)
        ctx.converted = converted if _keeps_converted(x) else None
        return F.linear(normed.to(dtype), converted, None if bias is None else bias.to(dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, mean, rstd, norm_weight, norm_bias, weight = ctx.saved_tensors
        converted = weight.to(gradient.dtype) if ctx.converted is None else ctx.converted
        to_normed = (gradient @ converted).to(x.dtype)
        to_norm = torch.ops.aten.native_layer_norm_backward(
            to_normed, x, x.shape[-1:], mean, rstd, norm_weight, norm_bias, ctx.needs_input_grad[:3]
        )
        normed = torch.native_layer_norm(x, x.shape[-1:], norm_weight, norm_bias, NORM_EPSILON)[0]
        return *to_norm, *_to_linear(gradient, normed, *ctx.needs_input_grad[3:])


def _keeps_converted(x: Tensor) -> bool:
    """Return whether the backward pass reuses the weights that the forward pass converted and padded.

    On CPUs converting them again costs more than the memory is worth. On GPUs it does not, and FSDP would have to hold the
    converted weights of all blocks, where it frees and gathers the original ones.
    """
    return x.device.type == "cpu"


def _to_linear(gradient: Tensor, x: Tensor, of_weight: bool, of_bias: bool) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of weight and bias of a linear layer with input `x`; None where not needed."""
    rows = gradient.flatten(0, -2)
    return rows.T @ x.to(rows.dtype).flatten(0, -2) if of_weight else None, rows.sum(0) if of_bias else None


class HeadNorm(nn.Module):
    """LayerNorm of the queries or keys of each head (QK-norm, Dehghani et al., 2023, arXiv 2302.05442)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.num_heads = config.num_heads
        self.norm = layer_norm(config.dim // config.num_heads, config)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Return (B, N, D)."""
        return self.norm(x_BND.unflatten(-1, (self.num_heads, -1))).flatten(-2)


class SelfAttention(nn.Module):
    """Multi-head self-attention; one product computes q, k and v."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.num_heads, self.backend = config.num_heads, config.attention
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=config.qkv_bias)
        self.out = nn.Linear(config.dim, config.dim, bias=config.projection_bias)
        self.q_norm = HeadNorm(config) if config.qk_norm else None
        self.k_norm = HeadNorm(config) if config.qk_norm else None

    def forward(self, x: Tensor, norm: nn.LayerNorm, bias: Tensor | None, packing: Packing) -> Tensor:
        """Return attention(LN x), (T, D), from packed rows (T, D)."""
        qkv_BNE = self._normed(packing.pad(linear_of_norm(self.qkv, norm, x)))
        return self.out(packing.pack(attend(self.num_heads, bias, self.backend, qkv_BNE)))

    def step(self, x_BND: Tensor, norm: nn.LayerNorm, past: KeyValues | None) -> tuple[Tensor, KeyValues]:
        """Attend from tokens (B, N, D) to those of `past` and to each other; return (B, N, D) and all keys and values."""
        qkv_BNE = self._normed(linear_of_norm(self.qkv, norm, x_BND))
        q_BND, kv = qkv_BNE.split([x_BND.shape[-1], 2 * x_BND.shape[-1]], dim=-1)
        kv = kv if past is None else torch.cat([past, kv], dim=1)
        return self.out(attend(self.num_heads, None, self.backend, q_BND, kv)), kv

    def _normed(self, qkv_BNE: Tensor) -> Tensor:
        if self.q_norm is None or self.k_norm is None:
            return qkv_BNE
        q_BND, k_BND, v_BND = qkv_BNE.chunk(3, dim=-1)
        return torch.cat([self.q_norm(q_BND), self.k_norm(k_BND), v_BND], dim=-1)


class CrossAttention(nn.Module):
    """Multi-head attention from target tokens to the encoder's context."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.num_heads, self.backend = config.num_heads, config.attention
        self.q = nn.Linear(config.dim, config.dim, bias=config.qkv_bias)
        self.kv = nn.Linear(config.dim, 2 * config.dim, bias=config.qkv_bias)
        self.out = nn.Linear(config.dim, config.dim, bias=config.projection_bias)
        self.q_norm = HeadNorm(config) if config.qk_norm else None
        self.k_norm = HeadNorm(config) if config.qk_norm else None

    def keys_values(self, context: Tensor, norm: nn.LayerNorm) -> KeyValues:
        """Return keys and values (…, 2D) of the context, computed once for all decoding steps of a request."""
        kv = linear_of_norm(self.kv, norm, context)
        if self.k_norm is None:
            return kv
        k, v = kv.chunk(2, dim=-1)
        return torch.cat([self.k_norm(k), v], dim=-1)

    def forward(self, x: Tensor, norm: nn.LayerNorm, kv: KeyValues, bias: Tensor | None, packing: Packing | None) -> Tensor:
        """Return attention(LN x, context): (T, D) from packed rows, or (B, N, D) from (B, N, D) without a packing."""
        q = linear_of_norm(self.q, norm, x)
        q_BND = q if packing is None else packing.pad(q)
        q_BND = q_BND if self.q_norm is None else self.q_norm(q_BND)
        attended_BND = attend(self.num_heads, bias, self.backend, q_BND, kv)
        return self.out(attended_BND if packing is None else packing.pack(attended_BND))


class _SwiGLUOfNorm(torch.autograd.Function):
    """down(silu(gate(LN x)) · up(LN x)) (SwiGLU, Shazeer 2020, arXiv 2002.05202); `up` holds the rows of gate, then of up.

    Autograd would also store LN x, silu(gate) and the product, and write the gradients of both halves twice. The hidden layer
    may be wider than the weights (`ALIGNMENT`): the additional columns are 0 and stay 0.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor | None,
        up: Tensor,
        up_bias: Tensor | None,
        down: Tensor,
        down_bias: Tensor | None,
    ) -> Tensor:
        dtype = _product_dtype(x)
        normed, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], norm_weight, norm_bias, NORM_EPSILON)
        padding = -down.shape[1] % ALIGNMENT if x.device.type == "cpu" else 0
        fast_up, fast_down = _padded_halves(up.to(dtype), padding), down.to(dtype)
        fast_down = F.pad(fast_down, (0, padding)) if padding else fast_down
        fast_bias = None if up_bias is None else _padded_halves(up_bias.to(dtype)[:, None], padding)[:, 0]
        hidden = F.linear(normed.to(dtype), fast_up, fast_bias)
        gate, value = hidden.chunk(2, dim=-1)
        ctx.save_for_backward(x, mean, rstd, norm_weight, norm_bias, up, down, hidden)
        ctx.converted = (fast_up, fast_down) if _keeps_converted(x) else None
        return F.linear(F.silu(gate).mul_(value), fast_down, None if down_bias is None else down_bias.to(dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, mean, rstd, norm_weight, norm_bias, up, down, hidden = ctx.saved_tensors
        dtype, width, needed = gradient.dtype, down.shape[1], ctx.needs_input_grad
        fast_up, fast_down = ctx.converted or (up.to(dtype), down.to(dtype))
        # 1) Through the second linear layer and the gate
        gate, value = hidden.chunk(2, dim=-1)
        opened = F.silu(gate)
        to_hidden = _to_halves(gradient @ fast_down, gate, value, opened)
        to_down, to_down_bias = _to_linear(gradient, opened.mul_(value), *needed[5:])
        # 2) Through the first linear layer and the norm, which is computed again
        to_normed = (to_hidden @ fast_up).to(x.dtype)
        to_norm = torch.ops.aten.native_layer_norm_backward(
            to_normed, x, x.shape[-1:], mean, rstd, norm_weight, norm_bias, needed[:3]
        )
        normed = torch.native_layer_norm(x, x.shape[-1:], norm_weight, norm_bias, NORM_EPSILON)[0]
        to_up, to_up_bias = _to_linear(to_hidden, normed, *needed[3:5])
        # 3) Drop the padding
        to_up, to_up_bias = _unpadded_halves(to_up, width), _unpadded_halves(to_up_bias, width)
        return *to_norm, to_up, to_up_bias, None if to_down is None else to_down[:, :width], to_down_bias


def _to_halves(to_product: Tensor, gate: Tensor, value: Tensor, opened: Tensor) -> Tensor:
    """Return the gradient of [gate, value] from that of `opened` · value, `opened` = silu(gate); overwrites its argument."""
    if torch.compiler.is_compiling():  # torch's compiler takes no half of a tensor as output; it fuses all of this anyway
        to_value = to_product * opened
        return torch.cat([torch.ops.aten.silu_backward(to_product * value, gate), to_value], dim=-1)
    to_hidden = to_product.new_empty(*to_product.shape[:-1], 2 * to_product.shape[-1])
    to_gate, to_value = to_hidden.chunk(2, dim=-1)
    torch.mul(to_product, opened, out=to_value)
    torch.ops.aten.silu_backward.grad_input(to_product.mul_(value), gate, grad_input=to_gate)
    return to_hidden


def _padded_halves(up: Tensor, padding: int) -> Tensor:
    """Return (2 (H + padding), E) from (2H, E): each half followed by rows of zeros."""
    return F.pad(up.unflatten(0, (2, -1)), (0, 0, 0, padding)).flatten(0, 1) if padding else up


def _unpadded_halves(up: Tensor | None, width: int) -> Tensor | None:
    """Return the first `width` rows of each half."""
    return None if up is None else up.unflatten(0, (2, -1))[:, :width].flatten(0, 1)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"silu": F.silu, "gelu": F.gelu, "relu": F.relu}


class FeedForward(nn.Module):
    """SwiGLU, or down(activation(up(LN x))) when not gated. Each family has options for other activations, as the 4M code."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gated, self.activation = config.gated_mlp, config.activation
        self.up = nn.Linear(config.dim, config.mlp_width * (2 if self.gated else 1), bias=config.mlp_bias)
        self.down = nn.Linear(config.mlp_width, config.dim, bias=config.mlp_bias)

    def forward(self, x: Tensor, norm: nn.LayerNorm) -> Tensor:
        """Return feed-forward(LN x), (…, D)."""
        if self.gated and self.activation == "silu":
            up, down = self.up, self.down
            return _SwiGLUOfNorm.apply(x, norm.weight, norm.bias, up.weight, up.bias, down.weight, down.bias)
        hidden = linear_of_norm(self.up, norm, x)
        activate = ACTIVATIONS[self.activation]
        if not self.gated:
            return self.down(activate(hidden))
        gate, value = hidden.chunk(2, dim=-1)
        return self.down(activate(gate) * value)


def drop_path(branch_TD: Tensor, rate: float, packing: Packing) -> Tensor:
    """Return a residual branch that is zero for some samples, and scaled up for others, so that its mean stays.

    Stochastic depth (Huang et al., 2016, arXiv 1603.09382), drawn from torch's generator for each sample.
    """
    scale_B = branch_TD.new_empty(packing.batch_size).bernoulli_(1 - rate).div_(1 - rate)
    if packing.row_T is None:
        return branch_TD * scale_B.repeat_interleave(packing.num_slots)[:, None]
    return branch_TD * scale_B[packing.row_T // packing.num_slots][:, None]


class EncoderBlock(nn.Module):
    """x + attention(LN x), then x + feed-forward(LN x).

    `drop_path`: share of samples for which a branch is left out in training; fine-tuning sets it.
    """

    drop_path = 0.0

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = layer_norm(config.dim, config)
        self.attention = SelfAttention(config)
        self.mlp_norm = layer_norm(config.dim, config)
        self.mlp = FeedForward(config)

    def forward(self, x_TD: Tensor, bias: Tensor | None, packing: Packing) -> Tensor:
        """Return (T, D)."""
        x_TD = x_TD + self._kept(self.attention(x_TD, self.attention_norm, bias, packing), packing)
        return x_TD + self._kept(self.mlp(x_TD, self.mlp_norm), packing)

    def _kept(self, branch_TD: Tensor, packing: Packing) -> Tensor:
        return drop_path(branch_TD, self.drop_path, packing) if self.training and self.drop_path else branch_TD


class DecoderBlock(nn.Module):
    """Self-attention among targets, cross-attention to the context, feed-forward; queries and context have separate norms."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.self_norm = layer_norm(config.dim, config)
        self.self_attention = SelfAttention(config)
        self.query_norm = layer_norm(config.dim, config)
        self.context_norm = layer_norm(config.dim, config)
        self.cross_attention = CrossAttention(config)
        self.mlp_norm = layer_norm(config.dim, config)
        self.mlp = FeedForward(config)

    def context_keys_values(self, context_TD: Tensor, packing: Packing) -> KeyValues:
        """Return the keys and values (B, N, 2D) of the cross-attention, zeros in empty slots."""
        return packing.pad(self.cross_attention.keys_values(context_TD, self.context_norm))

    def forward(
        self, x_TD: Tensor, self_bias: Tensor | None, packing: Packing, context: KeyValues, context_bias: Tensor | None
    ) -> Tensor:
        """Return (T, D): all targets at once."""
        x_TD = x_TD + self.self_attention(x_TD, self.self_norm, self_bias, packing)
        x_TD = x_TD + self.cross_attention(x_TD, self.query_norm, context, context_bias, packing)
        return x_TD + self.mlp(x_TD, self.mlp_norm)

    def step(
        self, x_BND: Tensor, past: KeyValues | None, context: KeyValues, context_bias: Tensor | None
    ) -> tuple[Tensor, KeyValues]:
        """Return (B, N, D) of the tokens that follow `past`, and the keys and values of all of them."""
        attended_BND, present = self.self_attention.step(x_BND, self.self_norm, past)
        x_BND = x_BND + attended_BND
        x_BND = x_BND + self.cross_attention(x_BND, self.query_norm, context, context_bias, None)
        return x_BND + self.mlp(x_BND, self.mlp_norm), present
