"""Requests: one call from values to values, and many different requests at once.

generate(model, conditions={"rgb": image}, targets=["depth", "caption"], preset="dense")
# → {"depth": meters (H, W), "caption": "a large red sphere …"}
"""

# H W image height and width

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from fourfold.data.ingestion.cleaning import clean_caption
from fourfold.data.ingestion.images import CleaningConfig, Unusable, clean_image, to_rgb
from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.config import GenerationConfig, base_name, find_preset
from fourfold.generation.values import as_array, stored
from fourfold.seeds import derive_seed

READABLE = CleaningConfig(min_side=1, min_caption_length=1, max_aspect_ratio=1e9)


@dataclass(frozen=True)
class Request:
    """Conditions and targets of one sample, both by label; values as for `generate`."""

    conditions: Mapping[str, Any]
    targets: Sequence[str]
    preset: str | GenerationConfig = "greedy"
    weights: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0


def generate(
    model: AnyToAny,
    conditions: Mapping[str, Any],
    targets: Sequence[str],
    *,
    preset: str | GenerationConfig = "greedy",
    weights: Mapping[str, float] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Return the targets of one sample, decoded: images and maps as arrays (H, W, …), text as str, boxes as a dict.

    Args:
        model: a model with its tokenizers.
        conditions: by label. rgb: a uint8 array (H, W, 3), a Pillow image or a path, of any size (its center square is
            used); caption: text, `___` for a gap; others: as the shards hold them. Token modalities (`tok_depth`): ids
            (L,).
        targets: labels, e.g. "depth"; `rgb@448` for a specific resolution.
        preset: a name of `PRESETS`, or settings.
        weights: of conditions, 1 for those not named; a negative weight steers away from its condition.
        seed: source of all randomness.

    Raises:
        ValueError: a name is unknown, or a condition is empty or not readable.
    """
    return generate_many(model, [Request(conditions, targets, preset, weights or {}, seed)])[0]


def generate_many(model: AnyToAny, requests: Sequence[Request], batch_size: int = 64) -> list[dict[str, Any]]:
    """Answer different requests in as few passes as possible; each result is the same as alone."""
    groups: dict[tuple, list[int]] = {}
    prepared = [{name: prepare(model, name, value) for name, value in r.conditions.items()} for r in requests]
    for index, request in enumerate(requests):
        if not request.conditions:
            raise ValueError("Give at least one condition, e.g. {'rgb': image}.")
        config = find_preset(request.preset) if isinstance(request.preset, str) else request.preset
        weighted = (tuple(sorted(request.weights.items())), tuple(sorted(request.conditions))) if request.weights else ()
        groups.setdefault((tuple(request.targets), config.model_dump_json(), weighted), []).append(index)
    answers: list[dict[str, Any]] = [{} for _ in requests]
    for (targets, config_json, _), members in groups.items():
        names = dict.fromkeys(name for index in members for name in prepared[index])
        batch = {name: _column([prepared[index].get(name) for index in members]) for name in names}
        seeds = [derive_seed(requests[index].seed, "sample", 0) for index in members]
        found = model.predict(
            batch,
            targets,
            preset=GenerationConfig.model_validate_json(config_json),
            weights=requests[members[0]].weights,
            seeds=seeds,
            batch_size=batch_size,
        )
        for row, index in enumerate(members):
            answers[index] = {name: values[row] for name, values in found.items()}
    return answers


def prepare(model: AnyToAny, name: str, value: Any) -> Any:
    """Return one sample's condition as the tokenizers take it; raises ValueError when it is unusable."""
    label_name, value = base_name(name), as_array(value) if isinstance(value, Tensor) else value
    if label_name == "rgb":
        return as_image(value, model.image_side(name))
    if label_name == "caption" and isinstance(value, str):
        try:
            return clean_caption(value.encode(), READABLE)
        except Unusable as reason:
            raise ValueError(f"Condition {name!r}: {reason}. Pass 1 to {READABLE.max_caption_length:,} characters.") from None
    kind = model.model.config.modality(model.token_name(name)).kind
    sequence_type, expected = (str, "text") if label_name == "caption" else (dict, "a dict, as the shards hold it")
    if not isinstance(value, np.ndarray) and not (kind == "sequence" and isinstance(value, sequence_type)):
        raise ValueError(
            f"Condition {name!r} is a {type(value).__name__}; pass {expected if kind == 'sequence' else 'an array'}."
        )
    return value.copy() if isinstance(value, np.ndarray) and not value.flags.writeable else value


def as_image(value: Any, size: int) -> np.ndarray:
    """Return the center square of an image, resized, as uint8 (size, size, 3).

    Args:
        value: an array (H, W, 3), uint8 0-255 or floats 0-1, a Pillow image, a path, or the bytes of a file.
        size: pixels per side.

    Raises:
        ValueError: the value is none of these, or the file is not an image.
    """
    if isinstance(value, str | Path):
        value = Path(value).read_bytes()
    if isinstance(value, bytes):
        try:
            return clean_image(value, READABLE, size).copy()
        except Unusable as reason:
            raise ValueError(f"Condition 'rgb': {reason}. Use a JPEG, PNG, WebP, GIF, BMP or TIFF file.") from None
    if isinstance(value, np.ndarray):
        if value.ndim != 3 or value.shape[2] != 3 or not value.size:
            raise ValueError(f"Condition 'rgb' is {value.dtype} of shape {value.shape}; pass uint8 (height, width, 3).")
        value = Image.fromarray(stored("rgb", value))
    if not isinstance(value, Image.Image):
        raise ValueError(f"Condition 'rgb' is a {type(value).__name__}; pass an array, a Pillow image or a path.")
    rgb = to_rgb(value)
    # a copy: torch warns about the read-only memory of Pillow
    return np.array(rgb if rgb.size == (size, size) else ImageOps.fit(rgb, (size, size), Image.Resampling.LANCZOS))


def _column(values: list[Any]) -> Any:
    """Return one condition of several samples: one array if all are arrays of the same shape, else a list."""
    stackable = all(isinstance(value, np.ndarray) and value.shape == values[0].shape for value in values)
    return np.stack(values) if stackable else values
