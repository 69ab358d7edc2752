"""Packed sequences: linear layers, norms and feed-forward layers compute only slots that hold a token.

A tenth to a quarter of the slots of a training batch is empty (a sample has fewer tokens than its budget). Rows of all samples
are therefore stored end to end, and laid out by sample for attention only.
"""

# B batch, N slots, S all B · N slots, T slots that hold a token, D width

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """The mapping between packed rows and the flat slots b · N + n. Without `row_T`, the rows are all slots in order."""

    batch_size: int
    num_slots: int
    row_T: Tensor | None  # the flat slot of each packed row
    slot_S: Tensor | None = None  # the packed row of each flat slot, 0 for empty ones
    empty: Tensor | None = None  # the flat slots that are empty

    @classmethod
    def of(cls, keep_BN: Tensor, rank_BN: Tensor | None = None) -> "Packing":
        """Return the packing of the slots where `keep_BN` is True, sorted (stably) by `rank_BN` if it is given."""
        batch_size, num_slots = keep_BN.shape
        keep_S = keep_BN.flatten()
        if rank_BN is None and bool(keep_S.all()):
            return cls(batch_size, num_slots, None)
        row_T = keep_S.nonzero()[:, 0]
        if rank_BN is not None:
            row_T = row_T[rank_BN.flatten()[row_T].argsort(stable=True)]
        slot_S = torch.zeros_like(keep_S, dtype=torch.int64)
        slot_S[row_T] = torch.arange(len(row_T), device=row_T.device)
        return cls(batch_size, num_slots, row_T, slot_S, (~keep_S).nonzero()[:, 0])

    def pack(self, x_BND: Tensor) -> Tensor:
        """Return the rows (T, …) of a tensor (B, N, …)."""
        flat = x_BND.flatten(0, 1)
        return flat if self.row_T is None else _Pack.apply(flat, self)

    def pad(self, x_TD: Tensor) -> Tensor:
        """Return (B, N, D) with zeros in empty slots."""
        flat = x_TD if self.row_T is None else _Pad.apply(x_TD, self)
        return flat.unflatten(0, (self.batch_size, self.num_slots))

    def gather(self, x_TD: Tensor) -> Tensor:
        """Return (S, …): the row of each slot, zeros in empty ones.

        It copies a row for every slot and then clears the empty ones: 2 to 3 times as fast as `index_copy_` into zeros.
        """
        assert self.slot_S is not None and self.empty is not None
        if not len(x_TD):
            return x_TD.new_zeros(len(self.slot_S), *x_TD.shape[1:])
        return x_TD.index_select(0, self.slot_S).index_fill_(0, self.empty, 0)


# The gradients of these two are plain copies; autograd would add up rows in case an index occurred twice.
class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, flat: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        assert packing.row_T is not None
        return flat.index_select(0, packing.row_T)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.packing.gather(gradient), None


class _Pad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return packing.gather(x_TD)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.index_select(0, ctx.packing.row_T), None
