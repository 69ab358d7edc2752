"""In-painting: generate a part of a map or image again, given the rest of it and any other conditions."""

# H W height and width of the value, h w of its tokens

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.conditions import MISSING
from fourfold.generation.config import GenerationConfig
from fourfold.seeds import derive_seed


def fill(
    model: AnyToAny,
    name: str,
    value: np.ndarray,
    mask_HW: np.ndarray,
    conditions: Mapping[str, Any] | None = None,
    *,
    preset: str | GenerationConfig = "greedy",
    seed: int = 0,
) -> np.ndarray:
    """Return `value` with the part under a mask generated again; all values outside the mask stay as they are.

    A token that the mask touches is hidden, the others are shown, and so are the pixels if the model reads them
    (4M, arXiv 2312.06647, §4, calls this conditioning on partial inputs).

    Args:
        model: a model with its tokenizers.
        name: a label that the model predicts as a grid of tokens, e.g. "rgb" or "depth".
        value: one sample of it, in the format of the shards: (H, W) or (H, W, C).
        mask_HW: bool, True where something new is wanted.
        conditions: of the same sample, by label, without a batch axis; for example a caption of what is wanted.
        preset: a name of `PRESETS`, or settings.
        seed: source of all randomness.

    Raises:
        ValueError: the label has no grid of tokens, it is among the conditions, or the mask has another shape or is
            empty.
    """
    target, given = model.target_name(name), dict(conditions or {})
    if model.model.config.modality(target).kind != "grid":
        raise ValueError(f"{name!r} is not a grid of tokens, so no part of it can be masked. Use ___ for a gap in a caption.")
    if name in given:
        raise ValueError(f"{name!r} is filled, so it cannot be a condition too. Leave it out of the conditions.")
    if mask_HW.shape != value.shape[:2] or mask_HW.dtype != bool:
        raise ValueError(f"The mask is {mask_HW.dtype} {mask_HW.shape}; it must be bool {value.shape[:2]}, as {name!r}.")
    if not mask_HW.any():
        raise ValueError(f"The mask of {name!r} is empty: it must be True where something is to be generated.")
    known = model.condition_tokens({key: _batch(one) for key, one in given.items()}) if given else {}
    known |= _partial_pixels(model, name, value, mask_HW)
    tokens = model.target_tokens(name, value[None])
    hidden = touched(mask_HW, model.model.config.modality(target).grid or (1, 1))
    known[target] = torch.where(torch.from_numpy(hidden.ravel())[None], MISSING, tokens.flatten(1))
    answer = model.generate(known, [name], preset=preset, seeds=[derive_seed(seed, "sample", 0)])[name][0]
    if answer.shape != value.shape:
        raise ValueError(f"{name!r} is {value.shape}, but this model generates {answer.shape}. Resize it first.")
    return np.where(mask_HW.reshape(mask_HW.shape + (1,) * (value.ndim - 2)), answer, value)


def touched(mask_HW: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return bool (h, w): the cells of a grid that overlap a pixel of a mask, which has at least as many pixels as cells."""
    rows, columns = np.nonzero(mask_HW)
    found = np.zeros(grid, dtype=bool)
    for row in _ends(rows, grid[0], mask_HW.shape[0]):
        for column in _ends(columns, grid[1], mask_HW.shape[1]):
            found[row, column] = True
    return found


def _ends(pixels: np.ndarray, num_cells: int, num_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last cell that each pixel of a row overlaps; both are the same if cells are whole pixels."""
    return pixels * num_cells // num_pixels, -((pixels + 1) * -num_cells // num_pixels) - 1


def _partial_pixels(model: AnyToAny, name: str, value: np.ndarray, mask_HW: np.ndarray) -> dict[str, torch.Tensor]:
    """Return the pixels outside the mask as a condition, if the model reads the label as pixels, too."""
    shown = model.token_name(name)
    modality = model.model.config.modality(shown)
    if modality.kind != "pixels" or value.shape[:2] != model.model.config.pixel_sizes[shown]:
        return {}
    cells = touched(mask_HW, modality.grid or (1, 1)).repeat(model.model.config.patch_size, 0)
    hidden = cells.repeat(model.model.config.patch_size, 1)
    return model.condition_tokens({name: np.where(hidden[..., None], np.int16(MISSING), value.astype(np.int16))[None]})


def _batch(value: Any) -> Any:
    return value[None] if isinstance(value, np.ndarray) else [value]
