"""Hidden states to cross-entropy, head by head: logits live only while they are in the cache, and are computed once.

Of released vocabularies the logits of a batch, their log-softmax and their gradient are hundreds of megabytes. Here a head's
gradient is made while its logits are at hand, in the forward pass, and written where the gradient of the whole table lies
(as in Cut Cross-Entropy, arXiv 2411.09009, and Liger's fused linear cross-entropy, arXiv 2410.10989).
"""

# T targets of all heads end to end, D width, V rows of all vocabularies, E heads; n rows and v ids of one head

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGITS_AT_ONCE = 2**23  # elements on a CPU, 32 MiB: about what its last cache holds; a GPU wants larger products
LOGITS_AT_ONCE_ON_GPU = 2**27


@dataclass(frozen=True)
class Head:
    """The part of the token table that predicts one modality, and how many targets it has in this batch."""

    name: str
    start: int  # its first row in the table
    size: int  # of its vocabulary
    num_targets: int


def weighted_cross_entropies(
    hidden_TD: Tensor, table_VD: Tensor, target_T: Tensor, heads: Sequence[Head], weights: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Return Σ weight · cross-entropy over all targets, a scalar, and each head's unweighted sum (E,), without a gradient.

    Rows of `hidden_TD` and ids in `target_T` (int64, within the head's vocabulary) are those of the heads, end to end.
    """
    return _HeadLosses.apply(hidden_TD, table_VD, target_T, tuple(heads), tuple(weights))


class _HeadLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_TD: Tensor, table_VD: Tensor, target_T: Tensor, heads: tuple[Head, ...], weights: tuple[float, ...]
    ) -> tuple[Tensor, Tensor]:
        wanted = any(ctx.needs_input_grad)
        device, dtype = hidden_TD.device.type, hidden_TD.dtype
        fast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else dtype
        to_hidden_TD = torch.empty_like(hidden_TD) if wanted else hidden_TD
        to_table_VD = torch.empty_like(table_VD) if wanted else table_VD
        most = LOGITS_AT_ONCE if device == "cpu" else LOGITS_AT_ONCE_ON_GPU
        sums = []
        with torch.autocast(device, enabled=False):
            for head, weight, rows in zip(heads, weights, _row_slices(heads), strict=True):
                ids = slice(head.start, head.start + head.size)
                table_vD, sum_of_head = table_VD[ids].to(fast), hidden_TD.new_zeros((), dtype=_precise(dtype))
                if wanted and not head.num_targets:
                    to_table_VD[ids].zero_()
                for part in _parts(rows, max(1, most // max(1, head.size))):
                    hidden_nD = hidden_TD[part].to(fast)
                    log_probability_nv = torch.log_softmax(hidden_nD @ table_vD.T, -1, dtype=_precise(fast))
                    sum_of_head -= log_probability_nv.gather(1, target_T[part, None]).sum()
                    if wanted:
                        difference_nv = _to_logits(log_probability_nv, target_T[part]).to(fast)
                        _product(to_hidden_TD[part], difference_nv, table_vD, weight, fresh=True)
                        _product(to_table_VD[ids], difference_nv.T, hidden_nD, weight, fresh=part.start == rows.start)
                sums.append(sum_of_head)
        sums_E = torch.stack(sums)
        if wanted:
            ctx.save_for_backward(to_hidden_TD, to_table_VD)
        ctx.mark_non_differentiable(sums_E)
        return (sums_E * sums_E.new_tensor(weights)).sum(), sums_E

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> Any:
        found = ctx.saved_tensors
        if gradient.device.type != "cpu" or float(gradient) != 1:  # to ask a GPU takes longer than to multiply
            found = [tensor * gradient for tensor in found]
        return *found, None, None, None


def _to_logits(log_probability_nv: Tensor, target_n: Tensor) -> Tensor:
    """Return what cross-entropy's gradient is before weighting, softmax − one-hot, in the place of its argument."""
    one_n1 = torch.ones_like(target_n[:, None], dtype=log_probability_nv.dtype)
    return log_probability_nv.exp_().scatter_add_(1, target_n[:, None], -one_n1)


def _product(out: Tensor, a: Tensor, b: Tensor, weight: float, fresh: bool) -> None:
    """Write weight · a b into `out`, or add it there."""
    if out.dtype == a.dtype:
        out.addmm_(a, b, beta=0 if fresh else 1, alpha=weight)
    elif fresh:
        out.copy_(a @ b).mul_(weight)
    else:
        out.add_(a @ b, alpha=weight)


def _row_slices(heads: Sequence[Head]) -> Iterator[slice]:
    start = 0
    for head in heads:
        yield slice(start, start + head.num_targets)
        start += head.num_targets


def _parts(rows: slice, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size))


def _precise(dtype: torch.dtype) -> torch.dtype:
    """Return in what a log-sum-exp over thousands of entries is computed: half precision would not do."""
    return torch.promote_types(dtype, torch.float32)
