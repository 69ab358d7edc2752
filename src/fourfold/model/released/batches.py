"""Convert batches of the reference code (apple/ml-4m) to `MaskedBatch`, and back.

A batch of the reference is a dictionary: modality → `tensor`, `input_mask`, `target_mask` (bool (B, L), True: not used) and
`decoder_attention_mask` (int (B, L): at the first target of a grid the number of its targets, ones for sequences).
"""

# B batch, N inputs, M targets, L length of a modality, C colors, H W image height and width, E width of vectors

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fourfold.modalities import IMAGENET_MEAN, IMAGENET_STD
from fourfold.model.batch import PADDING_MODALITY, MaskedBatch
from fourfold.model.config import ModalityConfig, ModelConfig

ReleasedBatch = Mapping[str, Mapping[str, Tensor]]
RANKED = ("sequence", "vectors")  # kinds whose position is the rank among the selected tokens
Columns = tuple[Tensor, ...]  # (B, L) each; the first is the modality, PADDING_MODALITY where nothing is selected


def to_masked_batch(batch: ReleasedBatch, config: ModelConfig, num_inputs: int, num_targets: int) -> MaskedBatch:
    """Return the tokens that the reference selects: all that its masks leave, in the order of the dictionary, cut at a budget.

    Args:
        batch: from the data loader of the reference.
        config: of the model, which `load_released` returns.
        num_inputs: `num_encoder_tokens` of the reference.
        num_targets: `num_decoder_tokens`.

    Raises:
        ValueError: a modality is unknown, a part is missing, or the attention mask is not that of masking.
    """
    inputs: list[Columns] = []
    targets: list[Columns] = []
    for name, parts in batch.items():
        modality = config.modality(name)
        _check(name, parts, modality)
        if modality.sides != "target":
            inputs.append(_inputs(parts, modality, config.index(name)))
        if modality.can_be_target:
            targets.append(_targets(name, parts, modality, config.index(name)))
    pixels, vectors = _pixels(batch, config), _vectors(batch, config)
    columns = [*_selected(inputs, num_inputs, 3), *_selected(targets, num_targets, 4), pixels, vectors]
    named: dict[str, Any] = dict(zip([field.name for field in fields(MaskedBatch)], columns, strict=True))
    return MaskedBatch(**named)


def from_masked_batch(batch: MaskedBatch, config: ModelConfig) -> dict[str, dict[str, Tensor]]:
    """Return a batch in the layout of the reference with the same inputs and targets; unknown ids are 0.

    Pixels are standardized by ImageNet's statistics, as the reference has them.
    """
    found = {}
    for index, modality in enumerate(config.modalities):
        if modality.kind in RANKED:
            found[modality.name] = _sequence(batch, modality, index)
        else:
            found[modality.name] = _image(batch, modality, index, config)
    return found


def _check(name: str, parts: Mapping[str, Tensor], modality: ModalityConfig) -> None:
    needed = ["tensor", "input_mask", *(["target_mask", "decoder_attention_mask"] if modality.can_be_target else [])]
    if missing := [part for part in needed if part not in parts]:
        raise ValueError(f"The batch lacks {', '.join(missing)} of {name!r}; it needs {', '.join(needed)}.")
    length = parts["input_mask"].shape[1]
    if modality.grid and length != modality.num_positions:
        raise ValueError(
            f"{name!r} has masks of {length} positions; the model needs {modality.num_positions}. Resize the image."
        )


def _inputs(parts: Mapping[str, Tensor], modality: ModalityConfig, index: int) -> Columns:
    keep_BL = ~parts["input_mask"].bool()
    place_BL = torch.arange(keep_BL.shape[1], device=keep_BL.device).expand_as(keep_BL)
    position_BL = keep_BL.long().cumsum(1) - 1 if modality.kind in RANKED else place_BL
    if (position_BL[keep_BL] >= modality.num_positions).any():
        longest = int(keep_BL.sum(1).max())
        raise ValueError(f"{modality.name!r} has {longest} inputs; the model allows {modality.num_positions}. Shorten them.")
    zeros = torch.zeros_like(place_BL)
    token_BL = {"pixels": zeros, "vectors": place_BL}.get(modality.kind)
    token_BL = parts["tensor"].flatten(1).long() if token_BL is None else token_BL
    return _where(keep_BL, index, position_BL, token_BL)


def _targets(name: str, parts: Mapping[str, Tensor], modality: ModalityConfig, index: int) -> Columns:
    keep_BL, token_BL = ~parts["target_mask"].bool(), parts["tensor"].flatten(1).long()
    span_BL = parts["decoder_attention_mask"].long()
    place_BL = torch.arange(keep_BL.shape[1], device=keep_BL.device).expand_as(keep_BL)
    if modality.kind == "grid":
        first_BL = keep_BL & (keep_BL.long().cumsum(1) == 1)
        wanted_BL = first_BL * keep_BL.sum(1, keepdim=True)
        columns = _where(keep_BL, index, place_BL, torch.zeros_like(token_BL), token_BL)
    else:
        # Token t predicts token t + 1, if both belong to the target
        rank_BL = keep_BL.long().cumsum(1) - 1
        next_BL = F.pad(token_BL[:, 1:], (0, 1))
        keep_BL = keep_BL & F.pad(keep_BL[:, 1:], (0, 1))
        wanted_BL = keep_BL.long()
        position_BL = torch.where(rank_BL < modality.num_positions, rank_BL, 0)  # so does the reference
        columns = _where(keep_BL, index, position_BL, token_BL, next_BL)
    if (span_BL[keep_BL] != wanted_BL[keep_BL]).any():
        raise ValueError(
            f"decoder_attention_mask of {name!r} is not that of masking: a grid needs the number of its targets at the first "
            "one, a sequence ones. Make it so; other masks are not supported."
        )
    return columns


def _where(keep_BL: Tensor, index: int, *columns: Tensor) -> Columns:
    modality_BL = torch.where(keep_BL, index, PADDING_MODALITY)
    return modality_BL, *(column.masked_fill(~keep_BL, 0) for column in columns)


def _selected(parts: list[Columns], budget: int, num_columns: int) -> list[Tensor]:
    """Return the columns (B, budget) of the selected tokens in their order, then empty slots."""
    if not parts:
        return [torch.zeros(0, 0, dtype=torch.int64)] * num_columns
    columns = [torch.cat(column, dim=1) for column in zip(*parts, strict=True)]
    order_BL = (columns[0] < 0).long().argsort(dim=1, stable=True)[:, :budget]
    missing = max(0, budget - columns[0].shape[1])
    paddings = [PADDING_MODALITY, *[0] * (num_columns - 1)]
    return [
        F.pad(column.gather(1, order_BL), (0, missing), value=padding)
        for column, padding in zip(columns, paddings, strict=True)
    ]


def _pixels(batch: ReleasedBatch, config: ModelConfig) -> Tensor | None:
    """Return the images of all resolutions below each other (`ModelConfig.pixel_windows`)."""
    images = {name: batch[name]["tensor"].permute(0, 2, 3, 1) for name in config.pixel_sizes if name in batch}
    if len(images) <= 1:
        return next(iter(images.values()), None)
    height, width = sum(h for h, _ in config.pixel_sizes.values()), max(w for _, w in config.pixel_sizes.values())
    first = next(iter(images.values()))
    canvas_BHWC = first.new_zeros(len(first), height, width, 3)
    for index, (top, rows, columns) in config.pixel_windows(height, width).items():
        if config.names[index] in images:
            canvas_BHWC[:, top : top + rows, :columns] = images[config.names[index]]
    return canvas_BHWC


def _vectors(batch: ReleasedBatch, config: ModelConfig) -> Tensor | None:
    return next((batch[m.name]["tensor"] for m in config.modalities if m.kind == "vectors" and m.name in batch), None)


def _image(batch: MaskedBatch, modality: ModalityConfig, index: int, config: ModelConfig) -> dict[str, Tensor]:
    """Return pixels or a grid: each token is at its position."""
    size, length = batch.batch_size, modality.num_positions
    of_inputs, of_targets = batch.input_modality_BN == index, batch.target_modality_BM == index
    ids_BL = _placed(of_inputs, batch.input_position_BN, batch.input_token_BN, length)
    ids_BL += _placed(of_targets, batch.target_position_BM, batch.target_id_BM, length)
    used = [
        _placed(mask, position, torch.ones_like(position), length).bool()
        for mask, position in ((of_inputs, batch.input_position_BN), (of_targets, batch.target_position_BM))
    ]
    first_BL = used[1] & (used[1].long().cumsum(1) == 1)
    tensor = ids_BL.view(size, *(modality.grid or ()))
    if modality.kind == "pixels":
        tensor = _standardized_image(batch, index, config)
    span_BL = (first_BL * used[1].sum(1, keepdim=True)).int()
    return {"tensor": tensor, "input_mask": ~used[0], "target_mask": ~used[1], "decoder_attention_mask": span_BL}


def _placed(mask_BN: Tensor, place_BN: Tensor, value_BN: Tensor, length: int) -> Tensor:
    """Return the values (B, length) at their places, 0 elsewhere."""
    found_BL = torch.zeros(len(mask_BN), length + 1, dtype=torch.int64, device=mask_BN.device)
    found_BL.scatter_(1, torch.where(mask_BN, place_BN, length), torch.where(mask_BN, value_BN, 0))
    return found_BL[:, :length]


def _standardized_image(batch: MaskedBatch, index: int, config: ModelConfig) -> Tensor:
    height, width = config.pixel_sizes[config.names[index]]
    pixels_BHWC = batch.pixels_BHWC
    if pixels_BHWC is None:
        return torch.zeros(batch.batch_size, 3, height, width)
    if not pixels_BHWC.is_floating_point():
        mean_C, deviation_C = (torch.tensor(row, device=pixels_BHWC.device) for row in (IMAGENET_MEAN, IMAGENET_STD))
        pixels_BHWC = (pixels_BHWC / 255 - mean_C) / deviation_C
    window = config.pixel_windows(*pixels_BHWC.shape[1:3]).get(index)
    if window is None:
        return pixels_BHWC.new_zeros(batch.batch_size, 3, height, width)
    top, rows, columns = window
    return pixels_BHWC[:, top : top + rows, :columns].permute(0, 3, 1, 2)


def _sequence(batch: MaskedBatch, modality: ModalityConfig, index: int) -> dict[str, Tensor]:
    """Return a sequence: the inputs from the start, then the runs of targets, each after an unused place."""
    of_inputs, of_targets = batch.input_modality_BN == index, batch.target_modality_BM == index
    rank_BN = of_inputs.long().cumsum(1) - 1
    if modality.kind == "vectors":
        assert batch.vectors_BLE is not None or not of_inputs.any()
        rows = 0 if batch.vectors_BLE is None else batch.vectors_BLE.shape[1]
        used_BL = _placed(of_inputs, batch.input_token_BN, torch.ones_like(rank_BN), rows).bool()
        none_BL = torch.zeros_like(used_BL)
        tensor = (
            torch.zeros(batch.batch_size, 0, modality.vector_width or 0) if batch.vectors_BLE is None else batch.vectors_BLE
        )
        return {"tensor": tensor, "input_mask": ~used_BL, "target_mask": ~none_BL, "decoder_attention_mask": none_BL.int()}
    first = int(of_inputs.sum(1).max()) if of_inputs.numel() else 0
    place_BM, length = _target_places(batch, of_targets, first + 1)
    input_BL = _placed(of_inputs, rank_BN, batch.input_token_BN, length)
    known_BL = _placed(of_inputs, rank_BN, torch.ones_like(rank_BN), length).bool()
    target_BL = _placed(of_targets, place_BM, batch.target_input_BM, length)
    start_BL = _placed(of_targets, place_BM, torch.ones_like(place_BM), length).bool()
    # The last token of a run has no slot: it is only predicted
    end_BL = _placed(of_targets, place_BM + 1, torch.ones_like(place_BM), length).bool() & ~start_BL
    last_BL = _placed(of_targets, place_BM + 1, batch.target_id_BM, length)
    ids_BL = input_BL + target_BL + last_BL * end_BL
    used_BL = start_BL | end_BL
    return {
        "tensor": ids_BL.int(),
        "input_mask": ~known_BL,
        "target_mask": ~used_BL,
        "decoder_attention_mask": used_BL.int(),
    }


def _target_places(batch: MaskedBatch, mask_BM: Tensor, start: int) -> tuple[Tensor, int]:
    """Return where each target's input goes, and the length of the sequence.

    A run of n tokens has n − 1 slots; ranks count tokens, so they skip one between two runs.
    """
    place_BM = torch.zeros_like(batch.target_position_BM)
    length = start + 1
    for row, mask_M in enumerate(mask_BM):
        slots = mask_M.nonzero()[:, 0].tolist()
        place, previous = start - 1, None
        for slot in slots:
            position, given = int(batch.target_position_BM[row, slot]), int(batch.target_input_BM[row, slot])
            is_next = previous is not None and (position == previous[0] + 1 or position == 0) and given == previous[1]
            place += 1 if is_next or previous is None else 3  # the end of the last run, and an unused place
            place_BM[row, slot] = place
            previous = (position, int(batch.target_id_BM[row, slot]))
        length = max(length, place + 2)
    return place_BM, length + 1
