"""4M: an encoder of any visible tokens and a decoder of any target tokens (arXiv 2312.06647, figure 2).

encode: content + position and modality → blocks → norm. context: linear(encoded) + position and modality.
decode: mask tokens or previous tokens + position and modality → blocks → norm. logits: one head per modality, tied to the
decoder's token table.
"""

# B batch, R registers, N input slots, M target slots, T slots that hold a token (packed rows), D width, E modalities

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fourfold.model.attention import attention_bias
from fourfold.model.batch import MaskedBatch
from fourfold.model.config import ModelConfig
from fourfold.model.cross_entropy import Head, Losses, LossName, TiedGradient, cross_entropies
from fourfold.model.embeddings import PatchEmbedding, PositionModalityEmbedding, TokenTable, offsets, vector_projection
from fourfold.model.layers import DecoderBlock, EncoderBlock, KeyValues, layer_norm
from fourfold.model.packing import Packing
from fourfold.seeds import torch_generator


@dataclass(frozen=True)
class Encoding:
    """Output of the encoder: features for transfer, context for the decoder. Registers come before the inputs."""

    features_TD: Tensor  # after the final norm
    context_TD: Tensor  # projected, position + modality added again
    packing: Packing
    keep: Tensor  # bool (B, R + N), True where the decoder may attend
    num_registers: int = 0

    @property
    def keep_BN(self) -> Tensor:
        """Bool, True where an input slot holds a token."""
        return self.keep[:, self.num_registers :]

    @property
    def features_BND(self) -> Tensor:
        """The features of each input slot, zeros in empty ones."""
        return self.packing.pad(self.features_TD)[:, self.num_registers :]

    @property
    def context_BND(self) -> Tensor:
        """The decoder's context of each input slot, zeros in empty ones."""
        return self.packing.pad(self.context_TD)[:, self.num_registers :]


class FourM(nn.Module):
    """The transformer. Its initial weights are a pure function of (config, seed)."""

    is_sequence_E: Tensor
    released_metadata: dict[str, str] | None = None  # of the released file that the model was loaded from

    def __init__(self, config: ModelConfig, seed: int = 0):
        super().__init__()
        self.config = config
        self.place = PositionModalityEmbedding(config)
        self.input_tokens = TokenTable(config)
        self.target_tokens = TokenTable(config)
        self.heads = None if config.tied_heads else TokenTable(config)
        self.pixels = [index for index, m in enumerate(config.modalities) if m.kind == "pixels"]
        self.patches = PatchEmbedding(config) if self.pixels else None
        self.further_patches = nn.ModuleList(PatchEmbedding(config) for _ in self.pixels[1:])  # for other resolutions
        self.vectors = next((index for index, m in enumerate(config.modalities) if m.kind == "vectors"), None)
        self.vector_projection = (
            None if self.vectors is None else vector_projection(config.modalities[self.vectors], config.dim)
        )
        self.mask_token_D = nn.Parameter(torch.empty(config.dim))
        self.registers_RD = nn.Parameter(torch.empty(config.num_registers, config.dim)) if config.num_registers else None
        self.encoder = nn.ModuleList(EncoderBlock(config) for _ in range(config.encoder_depth))
        self.encoder_norm = layer_norm(config.dim, config)
        self.context_projection = nn.Linear(config.dim, config.dim)
        self.decoder = nn.ModuleList(DecoderBlock(config) for _ in range(config.decoder_depth))
        self.decoder_norm = layer_norm(config.dim, config)
        is_sequence = [modality.kind == "sequence" for modality in config.modalities]
        self.register_buffer("is_sequence_E", torch.tensor(is_sequence), persistent=False)
        initialize(self, config, seed)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.mask_token_D.device

    @property
    def positions(self) -> PositionModalityEmbedding:
        """The position + modality embedding. It is registered as `place`, the name in the keys of saved models."""
        return self.place

    @property
    def decoder_blocks(self) -> list[DecoderBlock]:
        """The decoder's blocks, first to last."""
        return [block for block in self.decoder if isinstance(block, DecoderBlock)]

    def encode(self, batch: MaskedBatch) -> Encoding:
        """Encode the visible tokens."""
        keep, packing = self._input_packing(batch)
        position_TD, x_TD = self._embed_inputs(batch, packing)
        bias = attention_bias(keep[:, None, None, :])
        for block in self.encoder:
            x_TD = self._through(block, x_TD, bias, packing)
        features_TD = self.encoder_norm(x_TD)
        context_TD = self.context_projection(features_TD) + position_TD
        return Encoding(features_TD, context_TD, packing, keep, self.config.num_registers)

    def decode(self, batch: MaskedBatch, encoding: Encoding) -> Tensor:
        """Return the (B, M, D) hidden states of all targets at once, after the final norm; zeros in empty slots."""
        packing = self._target_packing(batch)
        return packing.pad(self._decoded_rows(batch, encoding, packing))

    def context_keys_values(self, encoding: Encoding) -> list[KeyValues]:
        """Return keys and values of each block's cross-attention; constant while targets are decoded step by step."""
        return [block.context_keys_values(encoding.context_TD, encoding.packing) for block in self.decoder_blocks]

    def embed_targets(self, modality: Tensor, position: Tensor, previous: Tensor, tied: TiedGradient | None = None) -> Tensor:
        """Return (…, D): the mask token for grids, the previous token for sequences, + position + modality.

        `tied`: passed on to the losses, if the table of the previous tokens is that of the heads.
        """
        is_sequence = self.is_sequence_E[modality][..., None]
        content = torch.where(is_sequence, self.target_tokens(modality, previous, tied), self.mask_token_D)
        return content + self.positions(modality, position, "target")

    def logits(self, hidden: Tensor, name: str) -> Tensor:
        """Return the (…, vocabulary) logits of one modality from hidden states (…, D)."""
        return F.linear(hidden, self.head_table.per_modality()[self.config.index(name)])

    @property
    def head_table(self) -> TokenTable:
        """The heads, (vocabulary, D) for each modality: the decoder's token tables if they are tied."""
        return self.target_tokens if self.heads is None else self.heads

    def forward(self, batch: MaskedBatch, loss: LossName = "modality", totals: dict[str, int] | None = None) -> Losses:
        """Return the losses of predicting the targets from the inputs.

        `totals`: number of targets of the whole step by modality, if the batch is part of one (`fourfold.model.cross_entropy`).
        """
        packing = self._target_packing(batch)
        tied = TiedGradient() if self.heads is None else None
        hidden_TD = self._decoded_rows(batch, self.encode(batch), packing, tied)
        heads, target_T = self._heads(batch, packing), packing.pack(batch.target_id_BM)
        num_modalities = sum(modality.can_be_target for modality in self.config.modalities)
        return cross_entropies(hidden_TD, self.head_table.weight_VD, target_T, heads, loss, num_modalities, totals, tied)

    def target_logits(self, hidden_BMD: Tensor, batch: MaskedBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return logits (n, vocabulary) and target ids (n,) of each modality that has targets, in (sample, slot) order."""
        packing = self._target_packing(batch)
        heads = [head for head in self._heads(batch, packing) if head.num_targets]
        counts = [head.num_targets for head in heads]
        rows = zip(heads, packing.pack(hidden_BMD).split(counts), packing.pack(batch.target_id_BM).split(counts), strict=True)
        found = {head.name: (self.logits(hidden_nD, head.name), target_n) for head, hidden_nD, target_n in rows}
        return {name: logits for name, (logits, _) in found.items()}, {name: target for name, (_, target) in found.items()}

    def _target_packing(self, batch: MaskedBatch) -> Packing:
        """Return the packing of the targets, sorted by modality, so that the rows of each head are adjacent."""
        return Packing.of(batch.target_keep_BM, batch.target_modality_BM)

    def _decoded_rows(
        self, batch: MaskedBatch, encoding: Encoding, packing: Packing, tied: TiedGradient | None = None
    ) -> Tensor:
        columns = (batch.target_modality_BM, batch.target_position_BM, batch.target_input_BM)
        modality_T, position_T, previous_T = map(packing.pack, columns)
        x_TD = self.embed_targets(modality_T, position_T, previous_T, tied)
        self_bias = attention_bias(self._visible_targets(batch.target_modality_BM)[:, None])
        context_bias = attention_bias(encoding.keep[:, None, None, :])
        for block, context in zip(self.decoder_blocks, self.context_keys_values(encoding), strict=True):
            x_TD = self._through(block, x_TD, self_bias, packing, context, context_bias)
        return self.decoder_norm(x_TD)

    def _heads(self, batch: MaskedBatch, packing: Packing) -> list[Head]:
        """Return the heads of all modalities that can be predicted, in the order of the packed targets."""
        counts = torch.bincount(packing.pack(batch.target_modality_BM), minlength=len(self.config.modalities)).tolist()
        sizes = self.target_tokens.sizes
        columns = zip(self.config.names, offsets(sizes), sizes, counts, strict=True)
        return [Head(name, start, size, count) for name, start, size, count in columns if size or count]

    def _through(self, block: nn.Module, *inputs: Any) -> Tensor:
        if self.config.recompute_blocks and self.training:
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def _input_packing(self, batch: MaskedBatch) -> tuple[Tensor, Packing]:
        """Return `keep` (B, R + N), True where a slot holds a token, and the packing.

        Packed rows are in the order pixels, vectors, tokens, registers.
        """
        keep = self._after_registers(batch.input_keep_BN, True)
        first = [*self.pixels, *([] if self.vectors is None else [self.vectors])]
        if not first and not self.config.num_registers:
            return keep, Packing.of(keep)
        rank_BN = torch.full_like(batch.input_modality_BN, len(first))
        for rank, index in enumerate(first):
            rank_BN = rank_BN.masked_fill(batch.input_modality_BN == index, rank)
        return keep, Packing.of(keep, self._after_registers(rank_BN, len(first) + 1))

    def _after_registers(self, slots_BN: Tensor, of_registers: int) -> Tensor:
        """Return (B, R + N): the value `of_registers` in the slots of the registers, then the given slots."""
        num_registers = self.config.num_registers
        return F.pad(slots_BN, (num_registers, 0), value=of_registers) if num_registers else slots_BN

    def _embed_inputs(self, batch: MaskedBatch, packing: Packing) -> tuple[Tensor, Tensor]:
        """Return position + modality, and the same + content, both (T, D). Registers have content only."""
        columns = (batch.input_modality_BN, batch.input_position_BN, batch.input_token_BN)
        packed = [packing.pack(self._after_registers(column, 0)) for column in columns]
        num_rows = len(packed[0]) - batch.batch_size * self.config.num_registers
        modality_T, position_T, token_T = (column[:num_rows] for column in packed)
        position_TD = self.positions(modality_T, position_T, "input")
        x_TD = self._input_content(batch, packing, modality_T, position_T, token_T) + position_TD
        if self.registers_RD is None:
            return position_TD, x_TD
        registers_TD = self.registers_RD.repeat(batch.batch_size, 1)
        return torch.cat([position_TD, torch.zeros_like(registers_TD)]), torch.cat([x_TD, registers_TD])

    def _input_content(
        self, batch: MaskedBatch, packing: Packing, modality_T: Tensor, position_T: Tensor, token_T: Tensor
    ) -> Tensor:
        """Return (T, D). In packed rows pixels come first, then vectors, then tokens."""
        if packing.row_T is None:  # neither pixels nor vectors, so the rows were not sorted
            return self.input_tokens(modality_T, token_T)
        sample_T = packing.row_T[: len(modality_T)] // packing.num_slots
        num_patches = sum(int(modality_T.eq(index).sum()) for index in self.pixels)
        first = num_patches + (0 if self.vectors is None else int(modality_T.eq(self.vectors).sum()))
        parts: list[Tensor] = []
        if batch.pixels_BHWC is not None:
            patches = slice(num_patches)
            parts += self._patches(batch.pixels_BHWC, modality_T[patches], sample_T[patches], position_T[patches])
        if self.vector_projection is not None and batch.vectors_BLE is not None:
            vectors_TE = batch.vectors_BLE[sample_T[num_patches:first], token_T[num_patches:first]]
            parts.append(self.vector_projection(vectors_TE))
        parts.append(self.input_tokens(modality_T[first:], token_T[first:]))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _patches(self, pixels_BHWC: Tensor, modality_T: Tensor, sample_T: Tensor, position_T: Tensor) -> list[Tensor]:
        """Return the embeddings of the visible patches, one tensor for each modality of pixels."""
        layers = dict(zip(self.pixels, [self.patches, *self.further_patches], strict=True))
        if len(layers) == 1:
            return [layer(pixels_BHWC, sample_T, position_T) for layer in layers.values() if layer is not None]
        windows = self.config.pixel_windows(*pixels_BHWC.shape[1:3])
        if missing := set(modality_T.unique().tolist()) - set(windows):
            names = ", ".join(self.config.names[index] for index in sorted(missing))
            raise ValueError(
                f"The batch has patches of {names}, but no pixels of that resolution. See ModelConfig.pixel_windows."
            )
        parts = []
        for index, (top, height, width) in windows.items():
            rows = modality_T == index
            image_BHWC = pixels_BHWC[:, top : top + height, :width]
            parts.append(layers[index](image_BHWC, sample_T[rows], position_T[rows]))
        return parts

    def _visible_targets(self, modality_BM: Tensor) -> Tensor:
        """Return (B, M, M) bool, True where target m may attend to target n (4M §2.1).

        Targets attend within their modality: grids to all its targets, sequences to those up to their own slot. Two options of
        the reference code differ: `causal_targets`, and `separate_targets: false` (the order of slots counts).
        """
        same_BMM = modality_BM[:, :, None] == modality_BM[:, None, :]
        slot_M = torch.arange(modality_BM.shape[1], device=modality_BM.device)
        before_MM = slot_M[:, None] >= slot_M[None, :]
        of_grid_BM1 = ~self.is_sequence_E[modality_BM.clamp(min=0)][:, :, None]
        seen_BMM = before_MM | (of_grid_BM1 & same_BMM & (not self.config.causal_targets))
        return seen_BMM & (same_BMM if self.config.separate_targets else modality_BM[:, None, :] >= 0)


FUSED_PARTS = {"qkv": 3, "kv": 2}  # matrices in one weight; each has its own fan-out


def initialize(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Fill all parameters in place: Xavier-uniform matrices, N(0, std) embeddings, norms 1, biases 0, as the 4M code does.

    The values of a parameter depend on the seed and its name only, not on other parts of the model.
    """
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            _fill(path, parameter, config, torch_generator(seed, "initialisation", path))  # spelling: ignore (part of the seed)


def _fill(path: str, parameter: nn.Parameter, config: ModelConfig, generator: torch.Generator) -> None:
    owner, _, kind = path.rpartition(".")
    layer = owner.rpartition(".")[2]
    if "norm" in layer:
        parameter.fill_(1.0 if kind == "weight" else 0.0)
    elif kind == "bias":
        parameter.zero_()
    elif kind == "weight":
        num_parts = 2 if layer == "up" and config.gated_mlp else FUSED_PARTS.get(layer, 1)
        for part in parameter.chunk(num_parts, dim=0):
            nn.init.xavier_uniform_(part, generator=generator)
    else:  # token tables, modality vectors, mask token, registers
        parameter.normal_(std=config.embedding_std, generator=generator)
