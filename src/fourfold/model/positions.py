"""Fixed sin-cos position tables, 1D for text and 2D for images (4M-7 §2.1; as in MAE and ViT-from-scratch baselines).

In float32 throughout, as the reference computes them: released files hold these tables, bit for bit.
"""

# P positions, D width, F frequencies

import torch
from torch import Tensor

from fourfold.model.config import ModalityConfig, ModelConfig


def sincos_1d(length: int, dim: int, temperature: float = 1e4) -> Tensor:
    """Return the (P, D) float32 table of a sequence: [sin, cos] of position / temperature^(i / F), F = D / 2."""
    return _waves(torch.arange(length, dtype=torch.float32), dim // 2, temperature)


def sincos_2d(rows: int, columns: int, dim: int, temperature: float = 1e4) -> Tensor:
    """Return the (P, D) float32 table of a row-major grid: [sin, cos] of the row, then [sin, cos] of the column.

    The reference's table runs column by column when rows ≠ columns, although its patches run row by row; ours is
    row-major always. The two are equal for square grids, which all released models have.
    """
    row_P = torch.arange(rows, dtype=torch.float32).repeat_interleave(columns)
    column_P = torch.arange(columns, dtype=torch.float32).repeat(rows)
    return torch.cat([_waves(row_P, dim // 4, temperature), _waves(column_P, dim // 4, temperature)], dim=1)


def position_table(modality: ModalityConfig, config: ModelConfig) -> Tensor:
    """Return the (P, D) float32 table of one modality: zeros where positions are learned."""
    if modality.learned_positions:
        return torch.zeros(modality.num_positions, config.dim)
    if modality.grid is not None:
        return sincos_2d(*modality.grid, config.dim, config.image_temperature)
    return sincos_1d(modality.num_positions, config.dim, config.sequence_temperature)


def _waves(position_P: Tensor, num_frequencies: int, temperature: float) -> Tensor:
    frequency_F = 1 / temperature ** (torch.arange(num_frequencies, dtype=torch.float32) / num_frequencies)
    angle_PF = position_P[:, None] * frequency_F
    return torch.cat([angle_PF.sin(), angle_PF.cos()], dim=1)
