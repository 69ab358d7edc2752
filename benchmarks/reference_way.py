"""Plain computation of 4M with the weights of a `FourM`, as in the published code (apple/ml-4m, fourm/models/fm.py).

It embeds every token of a sample and then selects, computes empty slots like others, stores masks and attention scores, and
reads losses one by one. The loss is the same, which `benchmarks/step.py` checks before it compares times.
"""

# B batch, T all tokens of a sample, N input slots, M target slots, D width, H heads, K head width

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourfold.model.batch import MaskedBatch
from fourfold.model.config import ModelConfig
from fourfold.model.fourm import FourM


@dataclass(frozen=True)
class WholeSamples:
    """All tokens of each modality (B, length) with the selected ones among them, and the indices of those."""

    input_ids: dict[str, Tensor]
    target_ids: dict[str, Tensor]  # the token before each target
    input_index_BN: Tensor
    target_index_BM: Tensor

    @classmethod
    def of(cls, config: ModelConfig, batch: MaskedBatch) -> "WholeSamples":
        """Fill whole samples with random tokens around those of a batch."""
        sizes = torch.tensor([modality.num_positions for modality in config.modalities])
        offsets = sizes.cumsum(0) - sizes
        sides = []
        for modality, position, token in (
            (batch.input_modality_BN, batch.input_position_BN, batch.input_token_BN),
            (batch.target_modality_BM, batch.target_position_BM, batch.target_input_BM),
        ):
            index = torch.where(modality >= 0, offsets[modality.clamp(min=0)] + position, 0)
            vocabulary = [torch.full((entry.num_positions,), max(entry.vocabulary_size, 1)) for entry in config.modalities]
            ids = torch.randint(10**6, (batch.batch_size, int(sizes.sum()))) % torch.cat(vocabulary)
            rows, columns = (modality >= 0).nonzero(as_tuple=True)
            ids[rows, index[rows, columns]] = token[rows, columns]
            sides.append((dict(zip(config.names, ids.split(sizes.tolist(), dim=1), strict=True)), index))
        (input_ids, input_index), (target_ids, target_index) = sides
        return cls(input_ids, target_ids, input_index, target_index)


def reference_loss(model: FourM, batch: MaskedBatch, samples: WholeSamples) -> Tensor:
    """Return the mean over modalities of the mean cross-entropy."""
    config = model.config
    position_TD = model.positions.position_table("input") + model.positions.modality_ED[model.positions.modality_P]
    keep_BN, keep_BM = batch.input_keep_BN, batch.target_keep_BM
    x_BND, position_BND = _selected(_embedded(model, batch, samples), position_TD, samples.input_index_BN, keep_BN)
    n, m = keep_BN.shape[1], keep_BM.shape[1]
    mask_BNN = keep_BN[:, None, :].expand(-1, n, -1).contiguous()
    for block in model.encoder:
        x_BND = x_BND + _self_attention(block.attention, block.attention_norm(x_BND), mask_BNN)
        x_BND = x_BND + _feed_forward(block.mlp, block.mlp_norm(x_BND))
    context_BND = model.context_projection(model.encoder_norm(x_BND)) + position_BND
    y_BMD, _ = _selected(_embedded_targets(model, samples), position_TD, samples.target_index_BM, keep_BM)
    modality = batch.target_modality_BM
    causal_MM = torch.ones(m, m, dtype=torch.bool).tril()
    is_sequence = model.is_sequence_E[modality.clamp(min=0)][:, :, None]
    mask_BMM = (modality[:, :, None] == modality[:, None, :]) & (causal_MM | ~is_sequence)
    mask_BMN = keep_BN[:, None, :].expand(-1, m, -1).contiguous()
    for block in model.decoder_blocks:
        y_BMD = y_BMD + _self_attention(block.self_attention, block.self_norm(y_BMD), mask_BMM)
        y_BMD = y_BMD + _cross_attention(block, block.query_norm(y_BMD), block.context_norm(context_BND), mask_BMN)
        y_BMD = y_BMD + _feed_forward(block.mlp, block.mlp_norm(y_BMD))
    y_BMD = model.decoder_norm(y_BMD)
    losses, shown = [], {}
    for index, name in enumerate(config.names):
        chosen_BM = modality == index
        if chosen_BM.any():
            loss = F.cross_entropy(model.logits(y_BMD[chosen_BM], name), batch.target_id_BM[chosen_BM])
            shown[name] = loss.item()
            losses.append(loss)
    return torch.stack(losses).mean()


def _embedded(model: FourM, batch: MaskedBatch, samples: WholeSamples) -> Tensor:
    """Return the content of all tokens, (B, T, D)."""
    tables = dict(zip(model.config.names, model.input_tokens.per_modality(), strict=True))
    parts = []
    for modality in model.config.modalities:
        if modality.kind == "pixels":
            size, patches = model.config.patch_size, model.patches
            assert patches is not None and batch.pixels_BHWC is not None
            image = (batch.pixels_BHWC.float() - patches.mean_C) / patches.std_C
            rows = image.unflatten(1, (-1, size)).unflatten(3, (-1, size)).permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)
            parts.append(patches.project(rows))
        else:
            parts.append(F.embedding(samples.input_ids[modality.name], tables[modality.name]))
    return torch.cat(parts, dim=1)


def _embedded_targets(model: FourM, samples: WholeSamples) -> Tensor:
    tables = dict(zip(model.config.names, model.target_tokens.per_modality(), strict=True))
    size = len(samples.target_index_BM)
    parts = []
    for modality in model.config.modalities:
        if modality.kind == "sequence":
            parts.append(F.embedding(samples.target_ids[modality.name], tables[modality.name]))
        else:
            parts.append(model.mask_token_D.expand(size, modality.num_positions, -1))
    return torch.cat(parts, dim=1)


def _selected(content_BTD: Tensor, position_TD: Tensor, index: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Return content + position, and position, of the selected tokens; zeros in empty slots."""
    position_BTD = position_TD.expand(len(index), -1, -1)
    wanted = index[:, :, None].expand(-1, -1, position_TD.shape[1])
    x = (content_BTD + position_BTD).gather(1, wanted).masked_fill(~keep[:, :, None], 0)
    return x, position_BTD.gather(1, wanted).masked_fill(~keep[:, :, None], 0)


def _attention(num_heads: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    q, k, v = (part.unflatten(-1, (num_heads, -1)).transpose(1, 2) for part in (q, k, v))
    scores_BHNM = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    scores_BHNM = scores_BHNM.masked_fill(~mask[:, None], torch.finfo(scores_BHNM.dtype).min)
    return (scores_BHNM.softmax(dim=-1) @ v).transpose(1, 2).reshape(len(q), -1, num_heads * q.shape[-1])


def _self_attention(attention: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    return attention.out(_attention(attention.num_heads, *attention.qkv(x).chunk(3, dim=-1), mask))


def _cross_attention(block: nn.Module, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
    attention = block.cross_attention
    return attention.out(_attention(attention.num_heads, attention.q(x), *attention.kv(context).chunk(2, dim=-1), mask))


def _feed_forward(mlp: nn.Module, x: Tensor) -> Tensor:
    gate, up = mlp.up.weight.chunk(2)
    return mlp.down(F.silu(F.linear(x, gate)) * F.linear(x, up))
