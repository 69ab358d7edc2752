"""Scaled dot-product attention for CPUs: head by head on views of the fused projections, without copies.

PyTorch's fused kernel needs the layout (B, H, N, K), and its gradient must then be copied into the layout of the projection.
Here each head is a strided view of the projection's output, and gradients are written once. Forward and backward take 5 to 25 %
less time than the fused kernel or the usual permuted products at the sizes of small models (docs/log.md).
"""

# B batch, N queries, M keys, D width, H heads, K head width

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Backend = Literal["auto", "sdpa", "matmul"]
MASKED = -1e30  # finite, also in bfloat16: a row without any visible key is uniform instead of NaN
MATMUL_UP_TO = 256 * 256  # scores per head; beyond this, a kernel that does not store all scores is faster


def attention_bias(keep: Tensor) -> Tensor | None:
    """Return a float32 bias: 0 where `keep` is True, MASKED elsewhere. Return None on a CPU if nothing is masked."""
    if keep.device.type == "cpu" and bool(keep.all()):
        return None
    return torch.zeros(keep.shape, device=keep.device).masked_fill_(~keep, MASKED)


def attend(num_heads: int, bias: Tensor | None, backend: Backend, *fused: Tensor) -> Tensor:
    """Return softmax(q kᵀ / √K + bias) v, (B, N, D).

    Args:
        num_heads: Number of heads H.
        bias: Broadcasts to (B, H, N, M), see `attention_bias`.
        backend: `matmul` (head by head), `sdpa` (PyTorch's kernel), or `auto`: matmul for small sizes on a CPU.
        *fused: q (B, N, D), k and v (B, M, D) in this order; neighbors may be concatenated along the last axis.
    """
    if backend == "auto":
        small = fused[0].shape[1] * fused[-1].shape[1] <= MATMUL_UP_TO
        backend = "matmul" if fused[0].device.type == "cpu" and small else "sdpa"
    if backend == "matmul":
        return _HeadByHead.apply(num_heads, None if bias is None else bias[:, 0], *fused)
    q, k, v = (part.unflatten(-1, (num_heads, -1)).transpose(1, 2) for part in _parts(fused))
    mask = None if bias is None else bias.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)


def _parts(fused: tuple[Tensor, ...]) -> list[Tensor]:
    """Return q, k and v."""
    width = sum(tensor.shape[-1] for tensor in fused) // 3
    return [part for tensor in fused for part in tensor.split(width, dim=-1)]


class _HeadByHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, num_heads: int, bias_BNM: Tensor | None, *fused: Tensor) -> Tensor:
        width = sum(tensor.shape[-1] for tensor in fused) // 3 // num_heads
        heads = zip(*(part.split(width, dim=-1) for part in _parts(fused)), strict=True)
        outputs, attentions = [], []
        exact = torch.promote_types(fused[0].dtype, torch.float32)  # the softmax is computed in float32 at least
        bias_BNM = None if bias_BNM is None else bias_BNM.to(fused[0].dtype)
        for q_BNK, k_BMK, v_BMK in heads:
            # With beta 0, the first argument gives shape and dtype only; its uninitialized content is not read
            start = q_BNK.new_empty(1, 1, 1) if bias_BNM is None else bias_BNM
            beta = 0 if bias_BNM is None else 1
            scores_BNM = torch.baddbmm(start, q_BNK, k_BMK.transpose(1, 2), beta=beta, alpha=width**-0.5)
            attention_BNM = scores_BNM.softmax(dim=-1, dtype=exact).to(v_BMK.dtype)
            attentions.append(attention_BNM)
            outputs.append(torch.bmm(attention_BNM, v_BMK))
        ctx.save_for_backward(*fused, *attentions)
        ctx.num_heads, ctx.width = num_heads, width
        return torch.cat(outputs, dim=-1)

    @staticmethod
    def backward(ctx: Any, gradient_BND: Tensor) -> Any:
        saved = ctx.saved_tensors  # read once: under activation checkpointing a second read fails
        fused, attentions = saved[: -ctx.num_heads], saved[-ctx.num_heads :]
        columns: list[list[Tensor]] = [[], [], []]
        heads = zip(*(part.split(ctx.width, dim=-1) for part in [*_parts(fused), gradient_BND]), attentions, strict=True)
        for q_BNK, k_BMK, v_BMK, out_BNK, attention_BNM in heads:
            to_attention_BNM = torch.bmm(out_BNK, v_BMK.transpose(1, 2))
            scores_BNM = torch._softmax_backward_data(to_attention_BNM, attention_BNM, -1, attention_BNM.dtype)
            empty, scale = scores_BNM.new_empty(1, 1, 1), ctx.width**-0.5
            columns[0].append(torch.baddbmm(empty, scores_BNM, k_BMK, beta=0, alpha=scale))
            columns[1].append(torch.baddbmm(empty, scores_BNM.transpose(1, 2), q_BNK, beta=0, alpha=scale))
            columns[2].append(torch.bmm(attention_BNM.transpose(1, 2), out_BNK))
        gradients, used = [], 0
        for tensor in fused:
            parts = tensor.shape[-1] // (ctx.width * ctx.num_heads)
            gradients.append(torch.cat([head for column in columns[used : used + parts] for head in column], dim=-1))
            used += parts
        return None, None, *gradients
