"""Cross-entropy over the target tokens, per modality and in all (4M-7 §2.3; 4m-facts §4).

`modality` (default): the mean over modalities of each one's mean. `token`: the mean over all target tokens. A modality
without targets in the batch takes no part. The reference averages it in as 0, and weights `token` by count × vocabulary
size: `reference_modality` and `reference_token` give that arithmetic, for comparison only.

A batch may be a part of a step (a process's share, or what fits memory at once). Given the step's number of targets by
modality, `totals`, the losses of its parts add up to the loss of the whole, whatever the parts: a mean of means would not.
"""

# T targets of all heads end to end, D width, V rows of all vocabularies, E heads that have targets

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from fourfold.model.heads import Head, weighted_cross_entropies

LossName = Literal["modality", "token", "reference_modality", "reference_token"]


@dataclass(frozen=True)
class Losses:
    """What a step minimizes and what it reports: scalars in nats per token."""

    total: Tensor
    per_modality: dict[str, Tensor]  # mean cross-entropy of each modality present; reported, so without a gradient
    num_tokens: dict[str, int]  # how many targets each had


def cross_entropies(
    hidden_TD: Tensor,
    table_VD: Tensor,
    target_T: Tensor,
    heads: Sequence[Head],
    loss: LossName,
    num_modalities: int,
    totals: Mapping[str, int] | None = None,
) -> Losses:
    """Return the losses of hidden states whose rows, and target ids, belong to `heads` in this order.

    `heads` are all that the table has, with or without targets here. `num_modalities` is how many the model can predict, which
    only `reference_modality` needs. `totals`: how many targets the step has of each modality, if this is a part of it; the
    means are then shares of the step's. Raises ValueError without targets.
    """
    counts = {head.name: head.num_targets if totals is None else totals.get(head.name, 0) for head in heads}
    weights = _weights(heads, counts, loss, num_modalities)
    per_target = [weights[head.name] / max(counts[head.name], 1) for head in heads]
    total, sums_E = weighted_cross_entropies(hidden_TD, table_VD, target_T, heads, per_target)
    present = {head.name: sums_E[place] / counts[head.name] for place, head in enumerate(heads) if counts[head.name]}
    return Losses(total, present, {name: counts[name] for name in present})


def _weights(heads: Sequence[Head], counts: Mapping[str, int], loss: LossName, num_modalities: int) -> dict[str, float]:
    """Return by what each modality's mean counts."""
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
