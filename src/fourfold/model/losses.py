"""Cross-entropy over the target tokens, per modality and in all (4M-7 §2.3; 4m-facts §4).

`modality` (default): the mean over modalities of each one's mean. `token`: the mean over all target tokens. A modality
without targets in the batch takes no part. The reference averages it in as 0, and weights `token` by count × vocabulary
size: `reference_modality` and `reference_token` give that arithmetic, for comparison only.

A batch may be a part of a step (a process's share, or what fits memory at once). Given the step's number of targets by
modality, `totals`, the losses of its parts add up to the loss of the whole, whatever the parts: a mean of means would not.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LossName = Literal["modality", "token", "reference_modality", "reference_token"]


@dataclass(frozen=True)
class Losses:
    """What a step minimises and what it reports: scalars in nats per token."""

    total: Tensor
    per_modality: dict[str, Tensor]  # mean cross-entropy of each modality present
    num_tokens: dict[str, int]  # how many targets each had


def cross_entropies(
    logits: dict[str, Tensor],
    targets: dict[str, Tensor],
    num_modalities: int,
    loss: LossName,
    totals: dict[str, int] | None = None,
) -> Losses:
    """Return the losses of logits (n, vocabulary) and target ids (n,) by modality.

    `num_modalities` is how many the model can predict, which only `reference_modality` needs. `totals`: how many targets the
    step has of each modality, if this is a part of it; the means are then shares of the step's. Raises ValueError without
    targets.
    """
    if totals is None:
        means = {name: F.cross_entropy(_precise(logits[name]), target) for name, target in targets.items() if len(target)}
        counts = {name: len(targets[name]) for name in means}
    else:
        means = {name: _share(logits[name], targets[name], total) for name, total in totals.items() if total}
        counts = {name: totals[name] for name in means}
    if not means:
        raise ValueError("The batch has no target token. Give at least one target modality a budget above 0.")
    values = torch.stack(list(means.values()))
    if loss == "modality":
        total = values.mean()
    elif loss == "reference_modality":
        total = values.sum() / num_modalities
    else:
        scale = [counts[name] * (logits[name].shape[1] if loss == "reference_token" else 1) for name in means]
        weights = values.new_tensor(scale)
        total = (values * weights).sum() / weights.sum()
    return Losses(total, means, counts)


def _share(logits: Tensor, target: Tensor, total: int) -> Tensor:
    """Return what some of `total` targets add to their mean."""
    return F.cross_entropy(_precise(logits), target, reduction="sum") / total


def _precise(logits: Tensor) -> Tensor:
    """Return logits of half precision in float32: a log-sum-exp over thousands of entries needs it."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
