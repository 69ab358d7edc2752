"""From logits to token ids: temperature, top-k, top-p (nucleus), one uniform number per token."""

# n tokens, V vocabulary

import torch
from torch import Tensor


def keep_top(logits_nV: Tensor, top_k: int, top_p: float) -> Tensor:
    """Return logits with −inf outside the `top_k` largest (0: all), then outside the smallest set of probability `top_p`.

    The most probable token always stays.
    """
    if 0 < top_k < logits_nV.shape[-1]:
        least = logits_nV.topk(top_k, dim=-1).values[..., -1:]
        logits_nV = logits_nV.masked_fill(logits_nV < least, -torch.inf)
    if top_p < 1:
        ordered, order = logits_nV.sort(dim=-1, descending=True, stable=True)
        probability = ordered.softmax(-1)
        drop = probability.cumsum(-1) - probability > top_p  # what stands before it already exceeds top_p
        logits_nV = logits_nV.masked_fill(drop.scatter(-1, order, drop), -torch.inf)
    return logits_nV


def sample(
    logits: Tensor, uniform: Tensor, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return token ids (…,) and their probabilities under the tempered, filtered distribution, from logits (…, V).

    `uniform` (…,) in [0, 1) decides, by the inverse of the cumulative distribution. Temperature 0 takes the most probable
    token, with probability 1.
    """
    if temperature == 0:
        ids = logits.argmax(-1)
        return ids, torch.ones_like(ids, dtype=torch.float32)
    probabilities = keep_top(logits.float() / temperature, top_k, top_p).softmax(-1)
    ids = draw(probabilities, uniform)
    return ids, probabilities.gather(-1, ids[..., None])[..., 0]


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return ids (…,) whose cumulative probability first exceeds `uniform`; never one of probability 0."""
    cumulative = probabilities.double().cumsum(-1)
    ids = torch.searchsorted(cumulative, uniform.double()[..., None] * cumulative[..., -1:], right=True)[..., 0]
    last = probabilities.shape[-1] - 1 - probabilities.flip(-1).gt(0).int().argmax(-1)
    return torch.minimum(ids, last)
