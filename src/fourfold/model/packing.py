"""Only slots that hold a token are computed: rows of all samples end to end, laid out per sample just for attention.

A tenth to a quarter of the slots of a training batch is empty (budgets that a clamp cut, 4m-facts §4.5): linear layers,
norms and feed-forward layers never see those.
"""

# B batch, N slots, T slots that hold a token, D width

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """Which flat slot (b · N + n) each packed row stands for."""

    batch_size: int
    num_slots: int
    row_T: Tensor | None  # None: every slot holds a token and rows are in the order of slots

    @classmethod
    def of(cls, keep_BN: Tensor, rank_BN: Tensor | None = None) -> "Packing":
        """Return the packing of the slots that are kept; `rank_BN` sorts rows (stably), so that equal ranks are neighbors."""
        batch_size, num_slots = keep_BN.shape
        flat = keep_BN.flatten()
        if rank_BN is None and bool(flat.all()):
            return cls(batch_size, num_slots, None)
        row_T = flat.nonzero()[:, 0]
        if rank_BN is not None:
            row_T = row_T[rank_BN.flatten()[row_T].argsort(stable=True)]
        return cls(batch_size, num_slots, row_T)

    def pack(self, x_BND: Tensor) -> Tensor:
        """Return the rows (T, …) of a tensor (B, N, …)."""
        flat = x_BND.flatten(0, 1)
        return flat if self.row_T is None else _Pack.apply(flat, self.row_T)

    def pad(self, x_TD: Tensor) -> Tensor:
        """Return (B, N, D) with zeros in empty slots."""
        flat = x_TD if self.row_T is None else _Pad.apply(x_TD, self.row_T, self.batch_size * self.num_slots)
        return flat.unflatten(0, (self.batch_size, self.num_slots))


class _Pack(torch.autograd.Function):
    """index_select of distinct rows: its gradient is a plain copy, where autograd would add with conflicts in mind."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, row_T: Tensor) -> Tensor:
        ctx.save_for_backward(row_T)
        ctx.num_rows = flat.shape[0]
        return flat.index_select(0, row_T)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (row_T,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.num_rows, *gradient.shape[1:]).index_copy_(0, row_T, gradient), None


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, row_T: Tensor, num_rows: int) -> Tensor:
        ctx.save_for_backward(row_T)
        return x_TD.new_zeros(num_rows, *x_TD.shape[1:]).index_copy_(0, row_T, x_TD)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (row_T,) = ctx.saved_tensors
        return gradient.index_select(0, row_T), None, None
