"""What the transformer eats: a batch of masked samples as plain tensors, whatever loader or request made it.

Only the tokens that masking *selected* are here, as flat lists; a slot names its modality, its place and its content, so
the model embeds N + M tokens a sample and never the ≈ 1,900 that a sample has.
"""

# B batch, N input budget, M target budget, H W image height and width, C 3 colors, L vectors in a row, E their width

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING = -1  # the modality of a slot that holds nothing


@dataclass(frozen=True)
class MaskedBatch:
    """Inputs and targets of B samples (4M-7 §2.2; 4m-facts §4). All tensors are int64 except pixels and vectors.

    `*_modality` is an index into `ModelConfig.modalities`, PADDING (−1) for an empty slot; the other fields of an empty
    slot are 0. Empty slots may stand anywhere; slots of one sequence stand in the order of the text.
    """

    input_modality_BN: Tensor
    input_position_BN: Tensor  # pixels and grids: row-major index in the grid; sequences: rank among the selected tokens
    input_token_BN: Tensor  # token id; 0 for pixels
    target_modality_BM: Tensor
    target_position_BM: Tensor  # as above, counted separately from the inputs
    target_input_BM: Tensor  # sequences: the id before the one to predict (teacher forcing); 0 for grids (mask token)
    target_id_BM: Tensor  # what to predict; 0 where unknown (generation)
    # uint8 0-255 (floats: already normalized). Of a model that sees several resolutions: one image a sample, a smaller one in
    # the top left corner, or all below each other (`ModelConfig.pixel_windows`); None when no input is pixels
    pixels_BHWC: Tensor | None = None
    vectors_BLE: Tensor | None = None  # float; the `input_token` of a slot of vectors is its row here

    @property
    def input_keep_BN(self) -> Tensor:
        """Bool, True where an input slot holds a token and attention may look."""
        return self.input_modality_BN >= 0

    @property
    def target_keep_BM(self) -> Tensor:
        """Bool, True where a target slot holds a token."""
        return self.target_modality_BM >= 0

    @property
    def batch_size(self) -> int:
        """Number of samples B."""
        return self.input_modality_BN.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory, for asynchronous copies to a GPU."""
        return self._map(Tensor.pin_memory)

    def __getitem__(self, samples: slice | Tensor | list[int]) -> Self:
        """Return some of the samples as a batch: a slice, or indices."""
        return self._map(lambda tensor: tensor[samples])

    def _map(self, function: Any) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: None if value is None else function(value) for name, value in values.items()}
        return type(self)(**changed)


def joined(parts: Sequence[MaskedBatch]) -> MaskedBatch:
    """Return batches as one; slots are padded to the largest budget, pixels to the largest image; what some lack is zeros."""
    if len(parts) == 1:
        return parts[0]
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(MaskedBatch)}
    sizes = [part.batch_size for part in parts]
    whole: dict[str, Any] = {name: _joined_column(name, values, sizes) for name, values in columns.items()}
    return MaskedBatch(**whole)


def _joined_slots(values: Sequence[Tensor], padding: int) -> Tensor:
    """Return (B, N) tensors as one, as wide as the widest."""
    width = max(value.shape[1] for value in values)
    return torch.cat([F.pad(value, (0, width - value.shape[1]), value=padding) for value in values])


def _joined_column(name: str, values: Sequence[Tensor | None], sizes: Sequence[int]) -> Tensor | None:
    there = [value for value in values if value is not None]
    if not there:
        return None
    if there[0].ndim == 2:
        return _joined_slots(there, PADDING if name in ("input_modality_BN", "target_modality_BM") else 0)
    # rows of vectors, height and width of images may differ; the last axis is a width, or colors
    *extents, _ = zip(*(value.shape[1:] for value in there), strict=True)
    widths = {value.shape[-1] for value in there}
    if len(widths) > 1:
        raise ValueError(f"Batches differ in the last axis of {name}: {sorted(widths)}. They are not of one model.")
    whole = there[0].new_zeros(sum(sizes), *map(max, extents), there[0].shape[-1])
    for value, start, size in zip(values, accumulate(sizes, initial=0), sizes, strict=False):
        if value is not None:
            corner = [slice(extent) for extent in value.shape[1:-1]]
            whole[(slice(start, start + size), *corner)] = value
    return whole
