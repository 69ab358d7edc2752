"""Generating a sequence token by token, with cached keys and values of self-attention and cross-attention."""

# B batch, T tokens so far, L maximum length, K stop ids, V vocabulary, D width

from collections.abc import Sequence

import torch
from torch import Tensor

from fourfold.generation.config import TargetConfig
from fourfold.generation.sampling import sample
from fourfold.model.attention import attention_bias
from fourfold.model.fourm import Encoding, FourM
from fourfold.model.layers import KeyValues

PAD = 0


class CachedDecoder:
    """The decoder for one encoding and one sequence; with its cache, a step computes one token, not the prefix."""

    def __init__(self, model: FourM, encoding: Encoding, name: str):
        self.model, self.name, self.index = model, name, model.config.index(name)
        self.contexts = model.context_keys_values(encoding)
        self.context_bias = attention_bias(encoding.keep[:, None, None, :])
        self.past: list[KeyValues | None] = [None] * len(self.contexts)
        position_L = torch.arange(model.config.modality(name).num_positions, device=model.device)
        self.position_LD = model.positions(torch.full_like(position_L, self.index), position_L, "target")

    def next_logits(self, token_B: Tensor, position: int) -> Tensor:
        """Return the logits (B, V) of the token after `token_B`, which is at `position`."""
        index_B1 = torch.full_like(token_B[:, None], self.index)
        x_B1D = self.model.target_tokens(index_B1, token_B[:, None]) + self.position_LD[position]
        for layer, block in enumerate(self.model.decoder_blocks):
            x_B1D, self.past[layer] = block.step(x_B1D, self.past[layer], self.contexts[layer], self.context_bias)
        return self.model.logits(self.model.decoder_norm(x_B1D)[:, 0], self.name)


def generate_sequence(
    decoders: Sequence[tuple[float, CachedDecoder]],
    start_id: int,
    stops_BK: Tensor,
    settings: TargetConfig,
    uniform_BL: Tensor,
) -> Tensor:
    """Return the ids (B, T) after `start_id`, without the stop id, padded with 0; T ≤ L.

    Args:
        decoders: the logits are the weighted sum of theirs (classifier-free guidance).
        start_id: the first input token of every sample.
        stops_BK: for each sample, the ids that end it.
        settings: temperature and filters.
        uniform_BL: for each sample and position a number in [0, 1), which decides the sample; L is the maximum length.
    """
    batch_size, max_length = uniform_BL.shape
    token_B = torch.full((batch_size,), start_id, dtype=torch.int64, device=uniform_BL.device)
    finished_B = torch.zeros_like(token_B, dtype=torch.bool)
    ids: list[Tensor] = []
    for position in range(max_length):
        parts = [weighted(weight, decoder.next_logits(token_B, position)) for weight, decoder in decoders]
        logits_BV = parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
        token_B = sample(logits_BV, uniform_BL[:, position], settings.temperature, settings.top_k, settings.top_p)
        finished_B = finished_B | (token_B[:, None] == stops_BK).any(1)
        if bool(finished_B.all()):
            break
        ids.append(token_B.masked_fill(finished_B, PAD))
    return torch.stack(ids, dim=1) if ids else token_B.new_zeros(batch_size, 0)


def weighted(weight: float, logits: Tensor) -> Tensor:
    """Return weight · logits. A weight of 1 returns them unchanged: they are large, and a pass over them takes time."""
    return logits if weight == 1 else weight * logits
