"""Model input: a batch of masked samples as plain tensors, made by a loader or from a request.

It holds only the tokens that masking *selected*. Each slot gives modality, position and content, so the model embeds N + M
tokens per sample instead of all its ≈ 1,900.
"""

# B batch, N input budget, M target budget, H W image height and width, C 3 colors, L vectors in a row, E their width

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

PADDING_MODALITY = -1  # modality index of an empty slot


@dataclass(frozen=True)
class MaskedBatch:
    """Inputs and targets of B samples (4M, arXiv 2312.06647, §2.2). All tensors are int64 except pixels and vectors.

    `*_modality` is an index into `ModelConfig.modalities`, or PADDING_MODALITY (−1) for an empty slot; the other fields are 0.
    Empty slots may be anywhere; slots of one sequence are in the order of its text.
    """

    input_modality_BN: Tensor
    input_position_BN: Tensor  # pixels and grids: row-major index in the grid; sequences: rank among the selected tokens
    input_token_BN: Tensor  # token id; row of `vectors_BLE` for vectors; 0 for pixels
    target_modality_BM: Tensor
    target_position_BM: Tensor  # as above; ranks of targets are counted separately
    target_input_BM: Tensor  # sequences: the previous id (teacher forcing); grids: 0 (mask token)
    target_id_BM: Tensor  # what to predict; 0 where unknown (generation)
    # uint8 0-255, or floats that are already normalized; None when no input is pixels. Models with several resolutions:
    # see `ModelConfig.pixel_windows`
    pixels_BHWC: Tensor | None = None
    vectors_BLE: Tensor | None = None  # float

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

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keep the memory of a batch that another stream copied until `stream` has done what it was given so far."""
        for field in fields(self):
            if (value := getattr(self, field.name)) is not None:
                value.record_stream(stream)

    def __getitem__(self, samples: slice | Tensor | list[int]) -> Self:
        """Return the batch of the samples given by a slice or by indices."""
        return self._map(lambda tensor: tensor[samples])

    def _map(self, function: Any) -> Self:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: None if value is None else function(value) for name, value in values.items()}
        return type(self)(**changed)


def concatenate(parts: Sequence[MaskedBatch]) -> MaskedBatch:
    """Return one batch of all samples, zero-padded to the largest budget, image and number of vectors.

    Raises:
        ValueError: The width of vectors or the number of color channels differs.
    """
    if len(parts) == 1:
        return parts[0]
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(MaskedBatch)}
    sizes = [part.batch_size for part in parts]
    whole: dict[str, Any] = {name: _concatenated_column(name, values, sizes) for name, values in columns.items()}
    return MaskedBatch(**whole)


def _padded_slots(values: Sequence[Tensor], padding: int) -> Tensor:
    """Return the rows of several (B, N) tensors, padded to the largest N."""
    width = max(value.shape[1] for value in values)
    return torch.cat([F.pad(value, (0, width - value.shape[1]), value=padding) for value in values])


def _concatenated_column(name: str, values: Sequence[Tensor | None], sizes: Sequence[int]) -> Tensor | None:
    present = [value for value in values if value is not None]
    if not present:
        return None
    if present[0].ndim == 2:
        return _padded_slots(present, PADDING_MODALITY if name in ("input_modality_BN", "target_modality_BM") else 0)
    # Numbers of vectors and image sizes may differ; the last axis (vector width, colors) may not
    *extents, _ = zip(*(value.shape[1:] for value in present), strict=True)
    widths = {value.shape[-1] for value in present}
    if len(widths) > 1:
        raise ValueError(
            f"Batches differ in the last axis of {name}: sizes {sorted(widths)}. Concatenate batches of one model only."
        )
    whole = present[0].new_zeros(sum(sizes), *map(max, extents), present[0].shape[-1])
    for value, start, size in zip(values, accumulate(sizes, initial=0), sizes, strict=False):
        if value is not None:
            corner = [slice(extent) for extent in value.shape[1:-1]]
            whole[(slice(start, start + size), *corner)] = value
    return whole
