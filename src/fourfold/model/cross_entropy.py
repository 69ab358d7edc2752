"""Cross-entropy over the target tokens, computed head by head (4M, arXiv 2312.06647, §2.3).

The logits of released vocabularies, their log-softmax and their gradient take hundreds of megabytes per batch. Here the
forward pass computes the gradient of a head while its logits are still in the cache, and writes it into the gradient of the
whole table (as in Cut Cross-Entropy, arXiv 2411.09009, and Liger's fused linear cross-entropy, arXiv 2410.10989).

Weighting (`LossName`): `modality` (default) is the mean over modalities of each one's mean. `token` is the mean over all
target tokens. Modalities without targets in the batch do not count. The reference code counts them as 0 and weights `token`
by count × vocabulary size; `reference_modality` and `reference_token` reproduce this, for comparisons only.

A batch may be part of a step (the share of one process, or a micro-batch). Given `totals`, the number of targets of the whole
step by modality, the losses of the parts add up to the loss of the step. A mean of means would not.
"""

# T targets of all heads end to end, D width, V rows of all vocabularies, E heads; n rows and v ids of one head

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LossName = Literal["modality", "token", "reference_modality", "reference_token"]
LOGITS_AT_ONCE = 2**23  # elements on a CPU: 32 MiB, about the size of a last-level cache
LOGITS_AT_ONCE_ON_GPU = 2**27  # GPUs need larger products
CONVERTED_AT_ONCE = 2**20  # numbers of a gradient in bfloat16 on a CPU: 2 MiB stay in the cache until they are in float32


@dataclass(frozen=True)
class Head:
    """The rows of the token table that predict one modality, and the number of its targets in this batch."""

    name: str
    start: int  # its first row in the table
    size: int  # of its vocabulary
    num_targets: int


@dataclass
class TiedGradient:
    """Passes the gradient of a table that is also looked up from the losses to the lookup, which adds its rows in place.

    Autograd would add both in new memory: a copy of the whole table at each step.
    """

    dense_VD: Tensor | None = None  # between the two backward passes


@dataclass(frozen=True)
class Losses:
    """The loss to minimize, and per-modality losses to report: scalars in nats per token."""

    total: Tensor
    per_modality: dict[str, Tensor]  # mean cross-entropy of each modality that has targets; without gradient
    num_tokens: dict[str, int]  # number of targets of each


def cross_entropies(
    hidden_TD: Tensor,
    table_VD: Tensor,
    target_T: Tensor,
    heads: Sequence[Head],
    loss: LossName,
    num_modalities: int,
    totals: Mapping[str, int] | None = None,
    tied: TiedGradient | None = None,
) -> Losses:
    """Return the losses of packed hidden states.

    Args:
        hidden_TD: Hidden states, sorted by head in the order of `heads`.
        table_VD: The output embeddings of all heads end to end.
        target_T: int64 target ids, each within the vocabulary of its head.
        heads: All heads of the table, with or without targets.
        loss: How modalities are weighted.
        num_modalities: Number of modalities that the model can predict; only `reference_modality` uses it.
        totals: Number of targets of the whole step by modality, when this batch is part of a step.
        tied: That of the `tied_lookup` in the table whose result the hidden states depend on.

    Raises:
        ValueError: There are no targets.
    """
    counts = {head.name: head.num_targets if totals is None else totals.get(head.name, 0) for head in heads}
    weights = _weights(heads, counts, loss, num_modalities)
    per_target = [weights[head.name] / max(counts[head.name], 1) for head in heads]
    total, sums_E = weighted_cross_entropies(hidden_TD, table_VD, target_T, heads, per_target, tied)
    present = {head.name: sums_E[index] / counts[head.name] for index, head in enumerate(heads) if counts[head.name]}
    return Losses(total, present, {name: counts[name] for name in present})


def _weights(heads: Sequence[Head], counts: Mapping[str, int], loss: LossName, num_modalities: int) -> dict[str, float]:
    """Return the weight of each modality's mean."""
    present = [head for head in heads if counts[head.name]]
    if not present:
        raise ValueError("The batch has no target token. Give at least one target modality a budget above 0.")
    if loss == "modality":
        raw = {head.name: 1.0 for head in present}
    elif loss == "reference_modality":
        return {head.name: 1.0 / num_modalities for head in heads}
    else:
        raw = {head.name: counts[head.name] * (head.size if loss == "reference_token" else 1.0) for head in present}
    return {head.name: raw.get(head.name, 0.0) / sum(raw.values()) for head in heads}


def tied_lookup(table_VD: Tensor, row: Tensor, tied: TiedGradient) -> Tensor:
    """Return the rows (…, D) of a table that the losses of `tied` depend on as well."""
    return _TiedLookup.apply(table_VD, row, tied)


def weighted_cross_entropies(
    hidden_TD: Tensor,
    table_VD: Tensor,
    target_T: Tensor,
    heads: Sequence[Head],
    weights: Sequence[float],
    tied: TiedGradient | None = None,
) -> tuple[Tensor, Tensor]:
    """Return Σ weight · cross-entropy over all targets (scalar), and each head's unweighted sum (E,) without gradient.

    Rows of `hidden_TD` and ids in `target_T` (int64, within the head's vocabulary) are sorted by head.
    """
    return _HeadLosses.apply(hidden_TD, table_VD, target_T, tuple(heads), tuple(weights), tied)


class _HeadLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: Tensor,
        table_VD: Tensor,
        target_T: Tensor,
        heads: tuple[Head, ...],
        weights: tuple[float, ...],
        tied: TiedGradient | None,
    ) -> tuple[Tensor, Tensor]:
        wanted = any(ctx.needs_input_grad)
        device, dtype = hidden_TD.device.type, hidden_TD.dtype
        fast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else dtype
        to_hidden_TD = torch.empty_like(hidden_TD) if wanted else hidden_TD
        to_table_VD = torch.empty_like(table_VD) if wanted else table_VD
        at_once = LOGITS_AT_ONCE if device == "cpu" else LOGITS_AT_ONCE_ON_GPU
        # In lower precision one buffer takes the rows of each head in turn: fresh memory for each costs more than copying
        largest = max((head.size for head in heads if head.num_targets), default=0)
        converts = fast != table_VD.dtype
        buffer_vD = table_VD.new_empty(largest, table_VD.shape[1], dtype=fast) if converts else table_VD
        sums = []
        with torch.autocast(device, enabled=False):
            for head, weight, rows in zip(heads, weights, _row_slices(heads), strict=True):
                ids = slice(head.start, head.start + head.size)
                table_vD, sum_of_head = table_VD[ids], hidden_TD.new_zeros((), dtype=_precise(dtype))
                if wanted and not head.num_targets:
                    to_table_VD[ids].zero_()
                if head.num_targets and converts:
                    table_vD = buffer_vD[: head.size].copy_(table_vD)
                for part in _parts(rows, max(1, at_once // max(1, head.size))):
                    hidden_nD = hidden_TD[part].to(fast)
                    log_probability_nv = torch.log_softmax(hidden_nD @ table_vD.T, -1, dtype=_precise(fast))
                    sum_of_head -= log_probability_nv.gather(1, target_T[part, None]).sum()
                    if wanted:
                        difference_nv = _to_logits(log_probability_nv, target_T[part]).to(fast)
                        _product(to_hidden_TD[part], difference_nv, table_vD, weight, is_first=True)
                        is_first = part.start == rows.start
                        if converts:
                            weighted_nD = (hidden_TD[part] * weight).to(fast)
                            _table_product(to_table_VD[ids], difference_nv.T, weighted_nD, is_first)
                        else:
                            _product(to_table_VD[ids], difference_nv.T, hidden_nD, weight, is_first)
                sums.append(sum_of_head)
        sums_E = torch.stack(sums)
        if wanted:
            ctx.gradients, ctx.tied = [to_hidden_TD, to_table_VD], tied
        ctx.mark_non_differentiable(sums_E)
        return (sums_E * sums_E.new_tensor(weights)).sum(), sums_E

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> Any:
        # Without another reference to it, autograd keeps a gradient itself instead of a copy
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError("The gradients of this loss are gone: backward was called before. Compute the loss again.")
        if gradient.device.type != "cpu" or float(gradient) != 1:  # reading a value from a GPU costs more than the product
            for tensor in gradients:
                tensor.mul_(gradient)
        if ctx.tied is not None:
            ctx.tied.dense_VD = gradients.pop()
            gradients.append(None)
        return *gradients, None, None, None, None


class _TiedLookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table_VD: Tensor, row: Tensor, tied: TiedGradient) -> Tensor:
        ctx.save_for_backward(row)
        ctx.tied = tied
        return F.embedding(row, table_VD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (row,), dense_VD = ctx.saved_tensors, ctx.tied.dense_VD
        ctx.tied.dense_VD = None
        if dense_VD is None:
            raise RuntimeError("The losses of a tied table were not part of this backward pass. Look up without `tied`.")
        # the kernel that autograd uses for a sparse gradient, here in place: it adds equal rows in their order
        rows_TD = gradient.reshape(-1, gradient.shape[-1])
        dense_VD.add_(torch.sparse_coo_tensor(row.reshape(1, -1), rows_TD, dense_VD.shape, check_invariants=False))
        return dense_VD, None, None


def _to_logits(log_probability_nv: Tensor, target_n: Tensor) -> Tensor:
    """Return the unweighted gradient of the logits, softmax − one-hot; overwrites its argument."""
    one_n1 = torch.ones_like(target_n[:, None], dtype=log_probability_nv.dtype)
    return log_probability_nv.exp_().scatter_add_(1, target_n[:, None], -one_n1)


def _product(out: Tensor, a: Tensor, b: Tensor, weight: float, is_first: bool) -> None:
    """Write weight · a b into `out`; add it unless `is_first`."""
    if out.dtype == a.dtype:
        out.addmm_(a, b, beta=0 if is_first else 1, alpha=weight)
    elif is_first:
        out.copy_(a @ b).mul_(weight)
    else:
        out.add_(a @ b, alpha=weight)


def _table_product(out_vD: Tensor, a_vn: Tensor, b_nD: Tensor, is_first: bool) -> None:
    """Write a b into the gradient of some rows of the table, which has higher precision; add it unless `is_first`."""
    at_once = max(1, CONVERTED_AT_ONCE // b_nD.shape[1]) if out_vD.device.type == "cpu" else len(out_vD)
    for rows in _parts(slice(0, len(out_vD)), at_once):
        if is_first:
            out_vD[rows].copy_(a_vn[rows] @ b_nD)
        else:
            out_vD[rows].add_(a_vn[rows] @ b_nD)


def _row_slices(heads: Sequence[Head]) -> Iterator[slice]:
    start = 0
    for head in heads:
        yield slice(start, start + head.num_targets)
        start += head.num_targets


def _parts(rows: slice, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size))


def _precise(dtype: torch.dtype) -> torch.dtype:
    """Return the precision of a log-sum-exp over thousands of entries: at least float32."""
    return torch.promote_types(dtype, torch.float32)
