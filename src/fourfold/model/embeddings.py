"""From slots to vectors: content + (position + modality), with one flat table for all modalities of a side.

A token's row is its modality's offset + its id, so a whole batch is one lookup; likewise for positions.
"""

# B batch, N slots, D width, V rows of all vocabularies, P positions of all modalities, E modalities, T visible patches

from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fourfold.modalities import IMAGENET_MEAN, IMAGENET_STD
from fourfold.model.config import ModelConfig
from fourfold.model.positions import position_table


def offsets(sizes: list[int]) -> list[int]:
    """Return where each of several blocks starts when they are laid end to end."""
    return [0, *accumulate(sizes)][:-1]


class TokenTable(nn.Module):
    """The token embeddings of one side (V, D), all modalities end to end."""

    offset_E: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.sizes = [modality.vocabulary_size for modality in config.modalities]
        self.weight_VD = nn.Parameter(torch.empty(sum(self.sizes), config.dim))
        self.register_buffer("offset_E", torch.tensor(offsets(self.sizes)), persistent=False)

    def forward(self, modality_BN: Tensor, token_BN: Tensor) -> Tensor:
        """Return (B, N, D); whatever row for slots that hold no token (the caller masks them)."""
        row_BN = self.offset_E[modality_BN.clamp(min=0)] + token_BN
        return F.embedding(row_BN.clamp_(max=self.weight_VD.shape[0] - 1), self.weight_VD)

    def per_modality(self) -> tuple[Tensor, ...]:
        """Return each modality's (vocabulary, D) block, empty for pixels; one split, so gradients meet in one buffer."""
        return self.weight_VD.split(self.sizes)


class PlaceEmbedding(nn.Module):
    """Position + modality: fixed sin-cos tables and a learned vector per modality, shared by encoder and decoder."""

    position_PD: Tensor
    modality_P: Tensor
    offset_E: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        sizes = [modality.num_positions for modality in config.modalities]
        self.modality_ED = nn.Parameter(torch.empty(len(sizes), config.dim))
        tables = [position_table(modality, config) for modality in config.modalities]
        self.register_buffer("position_PD", torch.cat(tables), persistent=False)
        self.register_buffer("modality_P", torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)), persistent=False)
        self.register_buffer("offset_E", torch.tensor(offsets(sizes)), persistent=False)

    def forward(self, modality_BN: Tensor, position_BN: Tensor) -> Tensor:
        """Return (B, N, D)."""
        table_PD = self.position_PD + self.modality_ED[self.modality_P]
        return F.embedding(self.offset_E[modality_BN.clamp(min=0)] + position_BN, table_PD)


class PatchEmbedding(nn.Module):
    """Visible patches to vectors: a bias-free linear layer (4M-7), or a small convolution inside each patch first.

    The convolution never crosses a patch's border, so masked patches stay unseen.
    """

    mean_C: Tensor
    std_C: Tensor

    def __init__(self, config: ModelConfig, stem_width: int = 32):
        super().__init__()
        size = self.patch_size = config.patch_size
        self.stem: nn.Module | None = None
        features = size * size * 3
        if config.patch_stem == "conv":
            self.stem = nn.Sequential(
                nn.Conv2d(3, stem_width, 3, stride=2, padding=1),
                nn.GELU(),
                nn.Conv2d(stem_width, 2 * stem_width, 3, stride=2, padding=1),
                nn.GELU(),
            )
            features = 2 * stem_width * (-(-size // 4)) ** 2
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
        if self.stem is not None:
            patch_TPPC = self.stem(patch_TPPC.permute(0, 3, 1, 2))
        return self.project(patch_TPPC.flatten(1))
