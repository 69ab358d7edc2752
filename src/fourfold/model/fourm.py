"""4M: an encoder over any visible tokens, a decoder over any wanted ones (arXiv 2312.06647, figure 2).

encode: content + place → blocks → norm. context: linear(encoded) + place. decode: mask tokens or previous tokens + place
→ blocks → norm. logits: one head per modality, tied to the decoder's token table.
"""

# B batch, N input budget, M target budget, D width, n target tokens of one modality

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourfold.model.batch import MaskedBatch
from fourfold.model.config import ModelConfig
from fourfold.model.embeddings import PatchEmbedding, PlaceEmbedding, TokenTable
from fourfold.model.initialisation import initialise
from fourfold.model.layers import DecoderBlock, EncoderBlock, KeyValues, attention_bias, layer_norm
from fourfold.model.losses import Losses, LossName, cross_entropies


@dataclass(frozen=True)
class Encoding:
    """What the encoder made of a batch: features for transfer, context for the decoder; zeros in empty slots."""

    features_BND: Tensor  # after the final norm
    context_BND: Tensor  # projected, position + modality added again
    keep_BN: Tensor  # bool

    def __getitem__(self, samples: slice | Tensor) -> "Encoding":
        """Return some of the samples."""
        return Encoding(self.features_BND[samples], self.context_BND[samples], self.keep_BN[samples])


class FourM(nn.Module):
    """The transformer. Weights are a pure function of (config, seed)."""

    is_sequence_E: Tensor

    def __init__(self, config: ModelConfig, seed: int = 0):
        super().__init__()
        self.config = config
        self.place = PlaceEmbedding(config)
        self.input_tokens = TokenTable(config)
        self.target_tokens = TokenTable(config)
        self.patches = PatchEmbedding(config) if any(m.kind == "pixels" for m in config.modalities) else None
        self.mask_token_D = nn.Parameter(torch.empty(config.dim))
        self.encoder = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder_depth))
        self.encoder_norm = layer_norm(config.dim, config)
        self.context_projection = nn.Linear(config.dim, config.dim)
        self.decoder = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_depth))
        self.decoder_norm = layer_norm(config.dim, config)
        is_sequence = [modality.kind == "sequence" for modality in config.modalities]
        self.register_buffer("is_sequence_E", torch.tensor(is_sequence), persistent=False)
        initialise(self, config, seed)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.mask_token_D.device

    @property
    def decoder_blocks(self) -> list[DecoderBlock]:
        """The decoder's blocks, first to last."""
        return [block for block in self.decoder if isinstance(block, DecoderBlock)]

    def encode(self, batch: MaskedBatch) -> Encoding:
        """Return the encoder's view of the visible tokens."""
        keep_BN = batch.input_keep_BN
        keep_BN1 = keep_BN[..., None]
        place_BND = self.place(batch.input_modality_BN, batch.input_position_BN) * keep_BN1
        x_BND = self._input_content(batch) * keep_BN1 + place_BND
        bias = attention_bias(keep_BN[:, None, None, :])
        for block in self.encoder:
            x_BND = block(x_BND, bias)
        features_BND = self.encoder_norm(x_BND) * keep_BN1
        context_BND = self.context_projection(features_BND) * keep_BN1 + place_BND
        return Encoding(features_BND, context_BND, keep_BN)

    def decode(self, batch: MaskedBatch, encoding: Encoding) -> Tensor:
        """Return the (B, M, D) hidden states of all targets at once, after the final norm."""
        x_BMD = self.embed_targets(batch.target_modality_BM, batch.target_position_BM, batch.target_input_BM)
        self_bias = attention_bias(self._visible(batch.target_modality_BM)[:, None])
        context_bias = attention_bias(encoding.keep_BN[:, None, None, :])
        for block in self.decoder_blocks:
            x_BMD, _ = block(x_BMD, self_bias, block.context_keys_values(encoding.context_BND), context_bias)
        return self.decoder_norm(x_BMD)

    def context_keys_values(self, encoding: Encoding) -> list[KeyValues]:
        """Return what each decoder block looks at: fixed while targets are decoded step by step."""
        return [block.context_keys_values(encoding.context_BND) for block in self.decoder_blocks]

    def embed_targets(self, modality_BM: Tensor, position_BM: Tensor, input_BM: Tensor) -> Tensor:
        """Return (B, M, D): the mask token for grids, the previous token for sequences, + position + modality."""
        sequence_BM1 = self.is_sequence_E[modality_BM.clamp(min=0)][..., None]
        content_BMD = torch.where(sequence_BM1, self.target_tokens(modality_BM, input_BM), self.mask_token_D)
        return (content_BMD + self.place(modality_BM, position_BM)) * (modality_BM >= 0)[..., None]

    def logits(self, hidden_nD: Tensor, name: str) -> Tensor:
        """Return the (…, vocabulary) logits of one modality."""
        return F.linear(hidden_nD, self.target_tokens.per_modality()[self.config.index(name)])

    def forward(self, batch: MaskedBatch, loss: LossName = "modality") -> Losses:
        """Return the losses of predicting the targets from the inputs."""
        hidden_BMD = self.decode(batch, self.encode(batch))
        logits, targets = self.target_logits(hidden_BMD, batch)
        return cross_entropies(logits, targets, sum(m.kind != "pixels" for m in self.config.modalities), loss)

    def target_logits(self, hidden_BMD: Tensor, batch: MaskedBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return logits (n, vocabulary) and target ids (n,) of each modality that has targets, in (sample, slot) order."""
        modality_S = batch.target_modality_BM.flatten()
        order_S = modality_S.argsort(stable=True)
        counts = torch.bincount(modality_S + 1, minlength=len(self.config.modalities) + 1).tolist()
        hidden = hidden_BMD.flatten(0, 1).index_select(0, order_S).split(counts)[1:]  # [0]: empty slots
        target = batch.target_id_BM.flatten().index_select(0, order_S).split(counts)[1:]
        present = [index for index, count in enumerate(counts[1:]) if count]
        tables = self.target_tokens.per_modality()
        logits = {self.config.names[index]: F.linear(hidden[index], tables[index]) for index in present}
        return logits, {self.config.names[index]: target[index] for index in present}

    def _input_content(self, batch: MaskedBatch) -> Tensor:
        content_BND = self.input_tokens(batch.input_modality_BN, batch.input_token_BN)
        pixels = next((i for i, m in enumerate(self.config.modalities) if m.kind == "pixels"), None)
        if pixels is None or batch.pixels_BHWC is None:
            return content_BND
        sample_T, slot_T = (batch.input_modality_BN == pixels).nonzero(as_tuple=True)
        assert self.patches is not None
        patch_TD = self.patches(batch.pixels_BHWC, sample_T, batch.input_position_BN[sample_T, slot_T])
        return content_BND.index_put((sample_T, slot_T), patch_TD.to(content_BND.dtype))

    def _visible(self, modality_BM: Tensor) -> Tensor:
        """Return (B, M, M) bool: within one modality only, all of a grid, a sequence up to the asking slot (§2.1)."""
        same_BMM = modality_BM[:, :, None] == modality_BM[:, None, :]
        slot_M = torch.arange(modality_BM.shape[1], device=modality_BM.device)
        before_MM = slot_M[:, None] >= slot_M[None, :]
        return same_BMM & (before_MM | ~self.is_sequence_E[modality_BM.clamp(min=0)][:, :, None])
