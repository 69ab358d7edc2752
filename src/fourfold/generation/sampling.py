"""From logits to token ids: top-k, top-p (nucleus), temperature, one uniform number per token.

The filters look at the logits as they come, and what they keep is tempered: so the reference does it, and its presets (a
temperature of 6 among the most probable tokens, for one) mean that.
"""

# n tokens, V vocabulary, K the most probable of it

import torch
from torch import Tensor

AT_ONCE = 2**19  # logits on a CPU
FEW = 64  # candidates that are looked at before the whole vocabulary is sorted


def keep_top(logits_nV: Tensor, top_k: int, top_p: float) -> Tensor:
    """Return logits with −inf outside the `top_k` largest (0: all), then outside the smallest set of probability `top_p`.

    The most probable token always stays. This is the definition; `sample` gets there without sorting the vocabulary.
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


def sample(logits: Tensor, uniform: Tensor, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Return token ids (…,) from logits (…, V). Temperature 0 takes the most probable token.

    `uniform` (…,) in [0, 1) decides, by the inverse of the cumulative distribution.
    """
    if temperature == 0:
        return logits.argmax(-1)
    return _drawn(logits, uniform, temperature, top_k, top_p)[0]


def sample_with_confidence(
    logits: Tensor, uniform: Tensor, temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return what `sample` does and the probabilities (…,) of these ids under the tempered, filtered distribution.

    At temperature 0 that would be 1 everywhere, which ranks nothing; then it is the probability at temperature 1.
    """
    if temperature == 0:
        ids = logits.argmax(-1)
        return ids, logits.float().softmax(-1).gather(-1, ids[..., None])[..., 0]
    return _drawn(logits, uniform, temperature, top_k, top_p)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return places (…,) whose cumulative probability first exceeds `uniform`; never one of probability 0."""
    cumulative = probabilities.double().cumsum(-1)
    places = torch.searchsorted(cumulative, uniform.double()[..., None] * cumulative[..., -1:], right=True)[..., 0]
    last = probabilities.shape[-1] - 1 - probabilities.flip(-1).gt(0).int().argmax(-1)
    return torch.minimum(places, last)


def _drawn(logits: Tensor, uniform: Tensor, temperature: float, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    """Return ids and their probabilities, some rows at a time: what stays in the cache costs half."""
    size = max(1, AT_ONCE // logits.shape[-1]) if logits.device.type == "cpu" else logits[..., 0].numel() or 1
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
    place = draw(probability, uniform)[..., None]
    return candidates.gather(-1, place)[..., 0], probability.gather(-1, place)[..., 0]


def _most_probable(logits: Tensor, top_k: int, top_p: float) -> tuple[Tensor, Tensor]:
    """Return (…, K) logits, −inf where a filter drops them, and ids, the most probable first; K as small as will do.

    Mostly a few tokens hold the mass `top_p`. How many are looked at never changes what is kept: tokens that equal the last of
    `top_k` stay as well.
    """
    size = logits.shape[-1]
    top_k = top_k if top_k < size else 0
    kept, ids = logits.topk(min(top_k + 1 if top_k else FEW, size))
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
