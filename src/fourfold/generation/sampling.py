"""Sampling of token ids from logits: top-k, top-p (nucleus, arXiv 1904.09751 §3.1) and temperature.

The filters apply to the logits before the temperature, as in 4M's reference implementation. Its presets depend on this
order: one has a temperature of 6, among the most probable tokens.
"""

# n tokens, V vocabulary, K the most probable of it

import torch
from torch import Tensor

MAX_CPU_LOGITS = 2**19  # processed at once on a CPU: what stays in the cache takes half the time
NUM_CANDIDATES = 64  # most probable tokens that are tried before the whole vocabulary is sorted


def keep_top(logits_nV: Tensor, top_k: int, top_p: float) -> Tensor:
    """Return logits with −inf outside the `top_k` largest (0: all), then outside the smallest set of mass `top_p`.

    The most probable token is always kept. This is the definition, for tests; `sample` gives the same result without
    sorting the whole vocabulary.
    """
    if 0 < top_k < logits_nV.shape[-1]:
        threshold = logits_nV.topk(top_k, dim=-1).values[..., -1:]
        logits_nV = logits_nV.masked_fill(logits_nV < threshold, -torch.inf)
    if top_p < 1:
        ordered, order = logits_nV.sort(dim=-1, descending=True, stable=True)
        probability = ordered.softmax(-1)
        drop = probability.cumsum(-1) - probability > top_p  # the more probable tokens already exceed top_p
        logits_nV = logits_nV.masked_fill(drop.scatter(-1, order, drop), -torch.inf)
    return logits_nV


def sample(logits: Tensor, uniform: Tensor, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Return token ids (…,) sampled from logits (…, V); temperature 0 takes the most probable token.

    `uniform` (…,) in [0, 1) decides by the inverse of the cumulative distribution.
    """
    if temperature == 0:
        return logits.argmax(-1)
    return _drawn(logits, uniform, temperature, top_k, top_p)[0]


def sample_with_confidence(
    logits: Tensor, uniform: Tensor, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return the ids of `sample` and their probabilities (…,) under the filtered distribution with temperature.

    At temperature 0 all probabilities would be 1 and rank nothing; those at temperature 1 are returned instead.
    """
    if temperature == 0:
        ids = logits.argmax(-1)
        return ids, logits.float().softmax(-1).gather(-1, ids[..., None])[..., 0]
    return _drawn(logits, uniform, temperature, top_k, top_p)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return indices (…,) at which the cumulative probability first exceeds `uniform`; never one of probability 0."""
    cumulative = probabilities.double().cumsum(-1)
    indices = torch.searchsorted(cumulative, uniform.double()[..., None] * cumulative[..., -1:], right=True)[..., 0]
    last = probabilities.shape[-1] - 1 - probabilities.flip(-1).gt(0).int().argmax(-1)
    return torch.minimum(indices, last)


def _drawn(logits: Tensor, uniform: Tensor, temperature: float, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    """Return ids and their probabilities, computed for some rows at a time."""
    size = max(1, MAX_CPU_LOGITS // logits.shape[-1]) if logits.device.type == "cpu" else logits[..., 0].numel() or 1
    rows = zip(logits.flatten(0, -2).split(size), uniform.flatten().split(size), strict=True)
    parts = [_drawn_rows(logits_nV, uniform_n, temperature, top_k, top_p) for logits_nV, uniform_n in rows]
    ids, confidence = (torch.cat(column).view(uniform.shape) for column in zip(*parts, strict=True))
    return ids, confidence


def _drawn_rows(logits: Tensor, uniform: Tensor, temperature: float, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    if not 0 < top_k < logits.shape[-1] and top_p == 1:
        probability = (logits.float() / temperature).softmax(-1)
        ids = draw(probability, uniform)
        return ids, probability.gather(-1, ids[..., None])[..., 0]
    kept, candidates = _most_probable(logits.float(), top_k, top_p)
    probability = (kept / temperature).softmax(-1)
    index = draw(probability, uniform)[..., None]
    return candidates.gather(-1, index)[..., 0], probability.gather(-1, index)[..., 0]


def _most_probable(logits: Tensor, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    """Return logits (…, K), −inf where a filter drops them, and their ids, the most probable first.

    Mostly a few tokens have the mass `top_p`, so K starts small and becomes V only where necessary; K never changes
    what is kept. Tokens that equal the last of `top_k` are kept as well.
    """
    size = logits.shape[-1]
    top_k = top_k if top_k < size else 0
    kept, ids = logits.topk(min(top_k + 1 if top_k else NUM_CANDIDATES, size))
    total = logits.logsumexp(-1, keepdim=True)
    ties = bool(top_k) and bool((kept[..., -1] == kept[..., -2]).any())
    if ties or (not top_k and bool(((kept - total).exp().sum(-1) <= top_p).any())):
        kept, ids = logits.sort(dim=-1, descending=True, stable=True)
    if top_k:
        kept = kept.masked_fill(kept < kept[..., top_k - 1, None], -torch.inf)
        total = kept.logsumexp(-1, keepdim=True)
    if top_p == 1:
        return kept, ids
    probability = (kept - total).exp()
    return kept.masked_fill(probability.cumsum(-1) - probability > top_p, -torch.inf), ids
