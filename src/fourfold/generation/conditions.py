"""What is known of some samples, as tokens, and how the model gets to see it."""

# B batch, L length of a modality, N visible slots, M target slots

import torch
from torch import Tensor

from fourfold.model.batch import PADDING, MaskedBatch
from fourfold.model.config import ModelConfig

UNKNOWN = -1  # a grid token that is not given

# Modality → int64 (B, L): grids row-major with UNKNOWN where nothing is given, sequences padded with 0;
# pixels → uint8 (B, H, W, 3).
Conditions = dict[str, Tensor]


def visible_batch(conditions: Conditions, config: ModelConfig, batch_size: int, device: torch.device) -> MaskedBatch:
    """Return the batch that shows all that is known and asks for nothing; no slot is empty in every sample.

    Raises ValueError for a modality the model does not know, or of the wrong shape.
    """
    columns: list[tuple[Tensor, Tensor, Tensor]] = []
    for name in sorted(conditions, key=config.index):
        columns.append(_slots(conditions[name].to(device), name, config, batch_size))
    empty = torch.zeros(batch_size, 0, dtype=torch.int64, device=device)
    keep, position, token = (
        (torch.cat([empty, *column], dim=1) for column in zip(*columns, strict=True)) if columns else (empty,) * 3
    )
    order = (keep < 0).long().argsort(dim=1, stable=True)[:, : int((keep >= 0).sum(1).max()) if columns else 0]
    modality_BN, position_BN, token_BN = (column.gather(1, order) for column in (keep, position, token))
    filled = modality_BN >= 0
    pixels = next((conditions[m.name] for m in config.modalities if m.kind == "pixels" and m.name in conditions), None)
    nothing = empty
    return MaskedBatch(
        modality_BN,
        position_BN * filled,
        token_BN * filled,
        nothing,
        nothing,
        nothing,
        nothing,
        None if pixels is None else pixels.to(device),
    )


def with_targets(batch: MaskedBatch, modality: int, position_BM: Tensor) -> MaskedBatch:
    """Return the batch asking for some places of one grid."""
    zeros = torch.zeros_like(position_BM)
    return MaskedBatch(
        batch.input_modality_BN,
        batch.input_position_BN,
        batch.input_token_BN,
        torch.full_like(position_BM, modality),
        position_BM,
        zeros,
        zeros,
        batch.pixels_BHWC,
    )


def _slots(value: Tensor, name: str, config: ModelConfig, batch_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return modality (PADDING where nothing is given), position and token of one modality, each (B, L)."""
    modality = config.modality(name)
    length = modality.num_positions
    if modality.kind == "pixels":
        rows, columns = modality.grid or (0, 0)
        expected = (batch_size, rows * config.patch_size, columns * config.patch_size, 3)
        _check(tuple(value.shape) == expected, name, value, f"pixels of shape {expected}")
        value = torch.zeros(batch_size, length, dtype=torch.int64, device=value.device)
        known = torch.ones_like(value, dtype=torch.bool)
    elif modality.kind == "grid":
        value = value.flatten(1)
        _check(tuple(value.shape) == (batch_size, length), name, value, f"tokens of shape {(batch_size, length)}")
        known = value >= 0
    else:
        _check(value.ndim == 2 and len(value) == batch_size, name, value, f"ids of shape ({batch_size}, length)")
        known = value > 0
    position = torch.arange(value.shape[1], device=value.device).expand_as(value)
    if modality.kind == "sequence":
        position = known.long().cumsum(1) - 1  # rank among the tokens that are there
        known = known & (position < length)
    _check(
        modality.vocabulary_size == 0 or int(value.max()) < modality.vocabulary_size, name, value, "ids below its vocabulary"
    )
    return torch.where(known, config.index(name), PADDING), position.clamp(min=0), value.clamp(min=0)


def _check(fits: bool, name: str, value: Tensor, expected: str) -> None:
    if not fits:
        raise ValueError(f"Condition {name!r} has shape {tuple(value.shape)}; expected {expected}.")
