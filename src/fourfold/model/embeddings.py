"""Embeddings of slots: content + position + modality (4M, arXiv 2312.06647, §2.1).

Each side has one flat table for all modalities. The row of a token is its modality's offset + its id, so all tokens of a batch
are one lookup; positions work in the same way.
"""

# B batch, D width, V rows of all vocabularies, P positions of all modalities (L learned), E modalities, F frequencies,
# T visible patches

from itertools import accumulate
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourfold.modalities import IMAGENET_MEAN, IMAGENET_STD
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.cross_entropy import TiedGradient, tied_lookup

Side = Literal["input", "target"]
STEM_WIDTH = 32  # channels after the first convolution of a convolutional stem


def offsets(sizes: list[int]) -> list[int]:
    """Return the start of each block when blocks of these sizes are stored end to end."""
    return [0, *accumulate(sizes)][:-1]


class TokenTable(nn.Module):
    """The token embeddings of one side (V, D), all modalities end to end."""

    offset_E: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.sizes = [modality.vocabulary_size for modality in config.modalities]
        self.weight_VD = nn.Parameter(torch.empty(sum(self.sizes), config.dim))
        self.register_buffer("offset_E", torch.tensor(offsets(self.sizes)), persistent=False)

    def forward(self, modality: Tensor, token: Tensor, tied: TiedGradient | None = None) -> Tensor:
        """Return (…, D) of int64 modality indices and token ids (…).

        `tied`: the table is that of the heads, too; the losses get the same object.
        """
        row = self.offset_E[modality] + token
        return F.embedding(row, self.weight_VD) if tied is None else tied_lookup(self.weight_VD, row, tied)

    def per_modality(self) -> tuple[Tensor, ...]:
        """Return each modality's (vocabulary, D) block, empty for pixels."""
        return self.weight_VD.split(self.sizes)


class PositionModalityEmbedding(nn.Module):
    """Position + modality: sin-cos or learned positions, and a learned vector per modality, shared by both sides.

    Each side has its own learned positions, as in the 4M code. A released checkpoint may also have other modality vectors in
    the decoder (`shared_modality_vectors: false`).
    """

    position_PD: Tensor
    modality_P: Tensor
    offset_E: Tensor
    learned_row_L: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        sizes = [modality.num_positions for modality in config.modalities]
        self.modality_ED = nn.Parameter(torch.empty(len(sizes), config.dim))
        own = None if config.shared_modality_vectors else nn.Parameter(torch.empty_like(self.modality_ED))
        self.of_targets_ED = own
        tables = [position_table(modality, config) for modality in config.modalities]
        self.register_buffer("position_PD", torch.cat(tables), persistent=False)
        self.register_buffer("modality_P", torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)), persistent=False)
        self.register_buffer("offset_E", torch.tensor(offsets(sizes)), persistent=False)
        learned_E = torch.tensor([modality.learned_positions for modality in config.modalities])
        self.register_buffer("learned_row_L", learned_E[self.modality_P].nonzero()[:, 0], persistent=False)
        self.learned = nn.ParameterDict()
        if len(self.learned_row_L):
            rows = torch.empty(len(self.learned_row_L), config.dim)
            self.learned = nn.ParameterDict({f"{side}_LD": nn.Parameter(rows.clone()) for side in ("input", "target")})

    def forward(self, modality: Tensor, position: Tensor, side: Side) -> Tensor:
        """Return (…, D) of int64 modality indices and positions (…)."""
        # The gradient of an index adds up rows with atomic operations, in an order that depends on timing. That of
        # `F.embedding` does not: each thread adds to its own rows.
        table_PD = self.position_table(side) + F.embedding(self.modality_P, self.modality_table(side))
        return F.embedding(self.offset_E[modality] + position, table_PD)

    def modality_table(self, side: Side) -> Tensor:
        """Return the (E, D) modality vectors of one side."""
        return self.modality_ED if side == "input" or self.of_targets_ED is None else self.of_targets_ED

    def position_table(self, side: Side) -> Tensor:
        """Return the (P, D) positions of one side, without modality vectors."""
        if not self.learned:
            return self.position_PD
        return self.position_PD.index_add(0, self.learned_row_L, self.learned[f"{side}_LD"])


def vector_projection(modality: ModalityConfig, dim: int) -> nn.Module:
    """Return a linear layer from vectors to the width of the model, or two with a bottleneck and no activation between them."""
    assert modality.vector_width is not None
    if modality.vector_bottleneck is None:
        return nn.Linear(modality.vector_width, dim)
    return nn.Sequential(
        nn.Linear(modality.vector_width, modality.vector_bottleneck), nn.Linear(modality.vector_bottleneck, dim)
    )


class PatchEmbedding(nn.Module):
    """Embed visible patches: a linear layer without bias (4M), after a small convolutional stem if `patch_stem` is conv.

    The stem (a 3 × 3 convolution of stride 2, then merged 2 × 2 blocks; GELU after each) helps small models on small patches
    (Xiao et al., 2021, arXiv 2106.14881). It stays inside each patch, so that masked patches have no influence. Both layers are
    computed as matrix products.
    """

    mean_C: Tensor
    std_C: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        size = self.patch_size = config.patch_size
        features = size * size * 3
        self.convolve: nn.Linear | None = None
        if config.patch_stem == "conv":
            self.convolve = nn.Linear(9 * 3, STEM_WIDTH)
            self.merge = nn.Linear(4 * STEM_WIDTH, 2 * STEM_WIDTH)
            features = 2 * STEM_WIDTH * (size // 4) ** 2
        self.project = nn.Linear(features, config.dim, bias=False)
        self.register_buffer("mean_C", 255 * torch.tensor(IMAGENET_MEAN), persistent=False)
        self.register_buffer("std_C", 255 * torch.tensor(IMAGENET_STD), persistent=False)

    def forward(self, pixels_BHWC: Tensor, sample_T: Tensor, position_T: Tensor) -> Tensor:
        """Return the (T, D) vectors of patch `position_T` (row-major) of image `sample_T`."""
        size = self.patch_size
        grid = pixels_BHWC.unflatten(2, (-1, size)).unflatten(1, (-1, size)).transpose(2, 3)  # B, rows, columns, size, size, C
        patch_TPPC = grid.flatten(1, 2)[sample_T, position_T]
        if not patch_TPPC.is_floating_point():
            patch_TPPC = (patch_TPPC - self.mean_C) / self.std_C
        return self.project(patch_TPPC.flatten(1) if self.convolve is None else self._stem(patch_TPPC))

    def _stem(self, patch_TPPC: Tensor) -> Tensor:
        assert self.convolve is not None
        padded = F.pad(patch_TPPC, (0, 0, 1, 0, 1, 0))  # with stride 2 on an even size, only the near border needs padding
        windows = padded.unfold(1, 3, 2).unfold(2, 3, 2).flatten(3)  # T, P/2, P/2, 27
        half = F.gelu(self.convolve(windows))
        blocks = half.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3).flatten(3)  # T, P/4, P/4, 4 · width
        return F.gelu(self.merge(blocks)).flatten(1)


def sincos_1d(length: int, dim: int, temperature: float = 1e4) -> Tensor:
    """Return the (P, D) float32 table of a sequence: [sin, cos] of position / temperature^(i / F), F = D / 2."""
    return _waves(torch.arange(length, dtype=torch.float32), dim // 2, temperature)


def sincos_2d(rows: int, columns: int, dim: int, temperature: float = 1e4) -> Tensor:
    """Return the (P, D) float32 table of a row-major grid: [sin, cos] of the row, then [sin, cos] of the column.

    The 4M code orders its table column by column when rows ≠ columns, although its patches are row by row. This table is always
    row-major. Both are equal for square grids, which all released models have.
    """
    row_P = torch.arange(rows, dtype=torch.float32).repeat_interleave(columns)
    column_P = torch.arange(columns, dtype=torch.float32).repeat(rows)
    return torch.cat([_waves(row_P, dim // 4, temperature), _waves(column_P, dim // 4, temperature)], dim=1)


def position_table(modality: ModalityConfig, config: ModelConfig) -> Tensor:
    """Return the (P, D) float32 table of one modality; zeros if its positions are learned.

    Released files contain these float32 tables bit for bit.
    """
    if modality.learned_positions:
        return torch.zeros(modality.num_positions, config.dim)
    if modality.grid is not None and modality.interpolated_from not in (None, modality.grid):
        table_PD = sincos_2d(*modality.interpolated_from, config.dim, config.image_temperature)
        return interpolated(table_PD, modality.interpolated_from, modality.grid)
    if modality.grid is not None:
        return sincos_2d(*modality.grid, config.dim, config.image_temperature)
    return sincos_1d(modality.num_positions, config.dim, config.sequence_temperature)


def interpolated(table_PD: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Return a row-major table (P, D) of another grid of the same image, bicubic: how 4M is fine-tuned at other resolutions.

    It is a function of the place in the image. The sin-cos table of the new grid is one of the patch's index, which stands for
    other places than in pretraining.
    """
    table_1DHW = table_PD.T.unflatten(1, old)[None]
    return F.interpolate(table_1DHW, new, mode="bicubic", align_corners=False)[0].flatten(1).T.contiguous()


def _waves(position_P: Tensor, num_frequencies: int, temperature: float) -> Tensor:
    frequency_F = 1 / temperature ** (torch.arange(num_frequencies, dtype=torch.float32) / num_frequencies)
    angle_PF = position_P[:, None] * frequency_F
    return torch.cat([angle_PF.sin(), angle_PF.cos()], dim=1)
