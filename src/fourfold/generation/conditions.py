"""Conditions: what is known of some samples, as tokens, and the model inputs that show it."""

# B batch, L length of a modality, E width of vectors, N visible slots, M target slots

import dataclasses
from functools import reduce

import torch
from torch import Tensor

from fourfold.model.batch import PADDING_MODALITY, MaskedBatch
from fourfold.model.config import ModalityConfig, ModelConfig

MISSING = -1  # a grid token that is not given; also a pixel, if pixels are signed integers; of floats it is NaN

# Modality → int64 (B, L): grids row-major with MISSING where nothing is given, sequences padded with 0;
# pixels → uint8 (B, H, W, 3), or int16 with MISSING or standardized floats with NaN in patches that are not given;
# vectors → float (B, L, E) with rows of zeros where nothing is given.
# A sample without a modality has MISSING, or zeros, everywhere.
Conditions = dict[str, Tensor]


def visible_batch(conditions: Conditions, config: ModelConfig, batch_size: int, device: torch.device) -> MaskedBatch:
    """Return the batch that shows all conditions and has no targets; no slot is empty in all samples.

    Args:
        conditions: tokens by modality, as described above.
        config: the model's.
        batch_size: number of samples B; it is needed when there are no conditions.
        device: the model's.

    Raises:
        ValueError: the model does not have a modality, or its condition has a wrong shape or id.
    """
    nothing = torch.zeros(batch_size, 0, dtype=torch.int64, device=device)
    shown = {name: conditions[name].to(device) for name in sorted(conditions, key=config.index)}
    columns = [_slots(value, name, config, batch_size) for name, value in shown.items()]
    keep, position, token = (torch.cat(column, dim=1) for column in zip(*columns, strict=True)) if columns else (nothing,) * 3
    order = (keep < 0).long().argsort(dim=1, stable=True)[:, : int((keep >= 0).sum(1).max()) if columns else 0]
    modality_BN, position_BN, token_BN = (column.gather(1, order) for column in (keep, position, token))
    filled = modality_BN >= 0
    inputs = (modality_BN, position_BN * filled, token_BN * filled)
    vectors = next((shown[m.name] for m in config.modalities if m.kind == "vectors" and m.name in shown), None)
    return MaskedBatch(*inputs, nothing, nothing, nothing, nothing, _pixels(shown, config), vectors)


def with_targets(batch: MaskedBatch, modality: int, position_BM: Tensor) -> MaskedBatch:
    """Return the batch with some positions (B, M) of one grid as targets."""
    zeros = torch.zeros_like(position_BM)
    return dataclasses.replace(
        batch,
        target_modality_BM=torch.full_like(position_BM, modality),
        target_position_BM=position_BM,
        target_input_BM=zeros,
        target_id_BM=zeros,
    )


def _pixels(shown: Conditions, config: ModelConfig) -> Tensor | None:
    """Return the images of a batch: those of the only resolution shown, or all below each other (`pixel_windows`)."""
    sizes = config.pixel_sizes
    images = [shown[name] for name in sizes if name in shown]
    if len(images) <= 1:
        return images[0] if images else None
    height, width = sum(rows for rows, _ in sizes.values()), max(columns for _, columns in sizes.values())
    dtype = reduce(torch.promote_types, (image.dtype for image in images))
    canvas = torch.zeros(len(images[0]), height, width, 3, dtype=dtype, device=images[0].device)
    for index, (top, rows, columns) in config.pixel_windows(height, width).items():
        if config.names[index] in shown:
            canvas[:, top : top + rows, :columns] = shown[config.names[index]]
    return canvas


def _slots(value: Tensor, name: str, config: ModelConfig, batch_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return modality (PADDING_MODALITY where nothing is given), position and token of one modality, each (B, L)."""
    modality = config.modality(name)
    token, known = _READERS[modality.kind](value, modality, config, batch_size)
    position = torch.arange(token.shape[1], device=token.device).expand_as(token)
    if modality.grid is None:
        position = known.long().cumsum(1) - 1  # rank among the tokens that are given
        known = known & (position < modality.num_positions)
    if modality.vocabulary_size and token.numel() and int(token.max()) >= modality.vocabulary_size:
        found, size = int(token.max()), modality.vocabulary_size
        raise ValueError(f"Condition {name!r} has the id {found}; allowed: 0 to {size - 1}.")
    return torch.where(known, config.index(name), PADDING_MODALITY), position.clamp(min=0), token.clamp(min=0)


def _read_pixels(value: Tensor, modality: ModalityConfig, config: ModelConfig, batch_size: int) -> tuple[Tensor, Tensor]:
    rows, columns = modality.grid or (0, 0)
    size = config.patch_size
    _check_shape(value, modality.name, (batch_size, rows * size, columns * size, 3), "pixels")
    token = torch.zeros(batch_size, modality.num_positions, dtype=torch.int64, device=value.device)
    if value.dtype == torch.uint8:
        return token, torch.ones_like(token, dtype=torch.bool)
    given = ~value.isnan() if value.is_floating_point() else value != MISSING
    return token, given.reshape(batch_size, rows, size, columns, size * 3).all(dim=4).all(dim=2).flatten(1)


def _read_grid(value: Tensor, modality: ModalityConfig, config: ModelConfig, batch_size: int) -> tuple[Tensor, Tensor]:
    token = value.flatten(1)
    _check_shape(token, modality.name, (batch_size, modality.num_positions), "tokens")
    return token, token >= 0


def _read_sequence(value: Tensor, modality: ModalityConfig, config: ModelConfig, batch_size: int) -> tuple[Tensor, Tensor]:
    _check_shape(value, modality.name, (batch_size, None), "ids")
    return value, value > 0


def _read_vectors(value: Tensor, modality: ModalityConfig, config: ModelConfig, batch_size: int) -> tuple[Tensor, Tensor]:
    _check_shape(value, modality.name, (batch_size, None, modality.vector_width), "vectors")
    row = torch.arange(value.shape[1], device=value.device).expand(batch_size, -1)
    return row, (value != 0).any(dim=-1)


_READERS = {"pixels": _read_pixels, "grid": _read_grid, "sequence": _read_sequence, "vectors": _read_vectors}


def _check_shape(value: Tensor, name: str, expected: tuple[int | None, ...], what: str) -> None:
    found = tuple(value.shape)
    if len(found) != len(expected) or any(want not in (None, got) for want, got in zip(expected, found, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in expected)
        raise ValueError(f"Condition {name!r} has shape {found}; expected {what} of shape ({wanted}).")
