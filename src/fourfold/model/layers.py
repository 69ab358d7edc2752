"""The blocks of the transformer: pre-LN attention, cross-attention and SwiGLU (4M-7 appendix; 4m-facts §3)."""

# B batch, N queries, M keys, D width, H heads, K head width

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourfold.model.config import ModelConfig

NORM_EPSILON = 1e-6
# Below this many scores per head, plain matmul + softmax is faster on a CPU than the fused kernel (docs/log.md).
FUSED_FROM_SCORES = 256 * 256


@dataclass
class KeyValues:
    """Keys and values (B, H, M, K) of one attention layer, kept while a sequence is decoded token by token."""

    keys_BHMK: Tensor
    values_BHMK: Tensor

    def extended(self, other: "KeyValues") -> "KeyValues":
        """Return these followed by the keys and values of later tokens."""
        return KeyValues(
            torch.cat([self.keys_BHMK, other.keys_BHMK], dim=2), torch.cat([self.values_BHMK, other.values_BHMK], dim=2)
        )


def layer_norm(dim: int, config: ModelConfig) -> nn.LayerNorm:
    """Return a LayerNorm as 4M has it: eps 1e-6, no bias unless the whole model has biases."""
    return nn.LayerNorm(dim, eps=NORM_EPSILON, bias=config.biases)


def attention_bias(keep: Tensor, dtype: torch.dtype = torch.float32) -> Tensor | None:
    """Return 0 where attention may look and the lowest finite number elsewhere, or None when everything may be seen.

    Finite, so that a row that may see nothing is uniform instead of NaN; such rows carry nothing that is used.
    """
    if keep.device.type == "cpu" and bool(keep.all()):
        return None
    return torch.zeros(keep.shape, dtype=dtype, device=keep.device).masked_fill_(~keep, torch.finfo(dtype).min)


def attend(q_BHNK: Tensor, kv: KeyValues, bias: Tensor | None, backend: str) -> Tensor:
    """Return softmax(q kᵀ / √K + bias) v as (B, N, D); `bias` broadcasts to (B, H, N, M)."""
    k_BHMK, v_BHMK = kv.keys_BHMK, kv.values_BHMK
    if backend == "auto":
        small = q_BHNK.shape[2] * k_BHMK.shape[2] < FUSED_FROM_SCORES
        backend = "matmul" if q_BHNK.device.type == "cpu" and small else "sdpa"
    if backend == "sdpa":
        out_BHNK = F.scaled_dot_product_attention(q_BHNK, k_BHMK, v_BHMK, None if bias is None else bias.to(q_BHNK.dtype))
    else:
        scores_BHNM = (q_BHNK * q_BHNK.shape[-1] ** -0.5) @ k_BHMK.transpose(-2, -1)
        out_BHNK = (scores_BHNM if bias is None else scores_BHNM + bias).softmax(dim=-1) @ v_BHMK
    return out_BHNK.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Multi-head self-attention; q, k and v from one product."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.num_heads, self.backend = config.num_heads, config.attention
        self.qkv = nn.Linear(config.dim, 3 * config.dim, bias=config.biases)
        self.out = nn.Linear(config.dim, config.dim, bias=config.biases)
        width = config.dim // config.num_heads
        self.q_norm = layer_norm(width, config) if config.qk_norm else nn.Identity()
        self.k_norm = layer_norm(width, config) if config.qk_norm else nn.Identity()

    def forward(self, x_BND: Tensor, bias: Tensor | None, past: KeyValues | None = None) -> tuple[Tensor, KeyValues]:
        """Return (B, N, D) and the keys and values seen, `past` included."""
        q, k, v = self.qkv(x_BND).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        kv = KeyValues(self.k_norm(k), v)
        kv = kv if past is None else past.extended(kv)
        return self.out(attend(self.q_norm(q), kv, bias, self.backend)), kv


class CrossAttention(nn.Module):
    """Multi-head attention from target tokens to the encoder's context."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.num_heads, self.backend = config.num_heads, config.attention
        self.q = nn.Linear(config.dim, config.dim, bias=config.biases)
        self.kv = nn.Linear(config.dim, 2 * config.dim, bias=config.biases)
        self.out = nn.Linear(config.dim, config.dim, bias=config.biases)
        width = config.dim // config.num_heads
        self.q_norm = layer_norm(width, config) if config.qk_norm else nn.Identity()
        self.k_norm = layer_norm(width, config) if config.qk_norm else nn.Identity()

    def keys_values(self, context_BMD: Tensor) -> KeyValues:
        """Return what the queries look at: computed once per request, whatever the number of decoding steps."""
        k, v = self.kv(context_BMD).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return KeyValues(self.k_norm(k), v)

    def forward(self, x_BND: Tensor, kv: KeyValues, bias: Tensor | None) -> Tensor:
        """Return (B, N, D)."""
        q_BHNK = self.q(x_BND).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return self.out(attend(self.q_norm(q_BHNK), kv, bias, self.backend))


class FeedForward(nn.Module):
    """SwiGLU, down(silu(gate x) · up x) with gate and up from one product; or down(gelu(up x)) when not gated."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gated = config.gated_mlp
        self.up = nn.Linear(config.dim, config.mlp_width * (2 if self.gated else 1), bias=config.biases)
        self.down = nn.Linear(config.mlp_width, config.dim, bias=config.biases)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Return (B, N, D)."""
        hidden = self.up(x_BND)
        if not self.gated:
            return self.down(F.gelu(hidden))
        gate, up = hidden.chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class EncoderBlock(nn.Module):
    """x + attention(LN x), then x + feed-forward(LN x)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.attention_norm = layer_norm(config.dim, config)
        self.attention = SelfAttention(config)
        self.mlp_norm = layer_norm(config.dim, config)
        self.mlp = FeedForward(config)

    def forward(self, x_BND: Tensor, bias: Tensor | None) -> Tensor:
        """Return (B, N, D)."""
        x_BND = x_BND + self.attention(self.attention_norm(x_BND), bias)[0]
        return x_BND + self.mlp(self.mlp_norm(x_BND))


class DecoderBlock(nn.Module):
    """Self-attention among targets, cross-attention to the context, feed-forward; separate norms on query and context."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.self_norm = layer_norm(config.dim, config)
        self.self_attention = SelfAttention(config)
        self.query_norm = layer_norm(config.dim, config)
        self.context_norm = layer_norm(config.dim, config)
        self.cross_attention = CrossAttention(config)
        self.mlp_norm = layer_norm(config.dim, config)
        self.mlp = FeedForward(config)

    def context_keys_values(self, context_BMD: Tensor) -> KeyValues:
        """Return the keys and values of the cross-attention."""
        return self.cross_attention.keys_values(self.context_norm(context_BMD))

    def forward(
        self,
        x_BND: Tensor,
        self_bias: Tensor | None,
        context: KeyValues,
        context_bias: Tensor | None,
        past: KeyValues | None = None,
    ) -> tuple[Tensor, KeyValues]:
        """Return (B, N, D) and the keys and values of the self-attention, `past` included."""
        attended_BND, present = self.self_attention(self.self_norm(x_BND), self_bias, past)
        x_BND = x_BND + attended_BND
        x_BND = x_BND + self.cross_attention(self.query_norm(x_BND), context, context_bias)
        return x_BND + self.mlp(self.mlp_norm(x_BND)), present
