"""The model as a server answers it: values as requests hold them, checked before anything is computed.

fourfold_ops loads this class for the model registry and for `kedro serve`; `prepare` and `answer` are its protocol.
"""

# B samples, L tokens

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError

from fourfold.data.codecs import PNG_MAGIC, decode, encode
from fourfold.data.ingestion.images import CleaningConfig, Unusable, clean_image
from fourfold.generation.any_to_any import AnyToAny, common_length
from fourfold.generation.conditions import Conditions
from fourfold.generation.config import GenerationConfig, TargetConfig, base_name, find_preset
from fourfold.generation.released import is_released
from fourfold.generation.requests import as_image, prepare
from fourfold.modalities import LABELS, TOKEN_MODALITIES
from fourfold.seeds import derive_seed
from fourfold.suggestions import unknown_name

MAX_PIXELS = 25_000_000  # of one image; checked before it is decoded
READABLE = CleaningConfig(min_side=1, max_pixels=MAX_PIXELS, max_aspect_ratio=1e9)
FORMATS = ("array", "png")
MILLIMETERS = 1000  # per meter: depth as PNG is 16-bit millimeters, as depth cameras store it
NUM_AXES = {"depth": 2, "classes": 2, "edges": 2, "normals": 3, "features": 3, "vector": 1, "embeddings": 2}  # by kind of label


@dataclass(frozen=True)
class Prepared:
    """One request, ready to be computed: B samples with the same settings."""

    known: Conditions
    count: int
    targets: tuple[str, ...]
    config: GenerationConfig
    seed: int
    image_format: str

    def group(self) -> tuple[Any, ...]:
        """Return a key: requests with equal keys are computed in one batch."""
        shown = sorted((name, value.dtype, *value.shape[2:]) for name, value in self.known.items())
        return self.targets, self.config.model_dump_json(), str(shown)


class ServedModel:
    """Checks requests and answers many at once; every answer is that of `AnyToAny.predict` for its request alone."""

    def __init__(self, model: AnyToAny) -> None:
        self.model = model

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder that `AnyToAny.save` wrote, or one with released files; raises ValueError when it is not complete."""
        return cls(AnyToAny.from_released(folder) if is_released(folder) else AnyToAny.load(folder))

    @property
    def targets(self) -> list[str]:
        """Labels that this model predicts, sorted."""
        modalities = self.model.model.config.modalities
        return sorted({TOKEN_MODALITIES[base_name(m.name)].label for m in modalities if m.can_be_target})

    @property
    def inputs(self) -> list[str]:
        """Labels that this model takes, sorted."""
        modalities = self.model.model.config.modalities
        return sorted({TOKEN_MODALITIES[base_name(m.name)].label for m in modalities if m.sides != "target"})

    @property
    def input_kinds(self) -> dict[str, str]:
        """The form of each input's values: a NumPy dtype, `str` or `json`."""
        return {name: LABELS[name].dtype for name in self.inputs}

    def predict(self, conditions: Mapping[str, Sequence[Any]], targets: Sequence[str], **params: Any) -> dict[str, Any]:
        """Answer one request; arguments as for `prepare`, results as for `answer`."""
        return self.answer([self.prepare(conditions, targets, **params)])[0]

    def prepare(
        self,
        conditions: Mapping[str, Sequence[Any]],
        targets: Sequence[str],
        *,
        preset: str = "greedy",
        seed: int = 0,
        guidance: float | None = None,
        temperature: float | None = None,
        format: str = "array",
    ) -> Prepared:
        """Check one request and read its values.

        Args:
            conditions: by label, one value for each sample, None for a sample that lacks it. rgb: an array uint8 (H, W, 3) or
                the bytes of an image file, of any size; caption: text; det and other JSON: as the shards hold them; other
                labels: arrays, or the bytes of a PNG or npy file, in the format of the shards.
            targets: labels that the model predicts; `rgb@448` for a specific resolution.
            preset: a name of `PRESETS`.
            seed: sample i depends only on (seed, i), as in `AnyToAny.predict`.
            guidance: instead of that of the preset, for all targets.
            temperature: instead of that of the preset, for all targets.
            format: "array", or "png" for the base64 of PNG files where a target is an image.

        Raises:
            ValueError: one sentence about what is wrong.
        """
        if format not in FORMATS:
            raise ValueError(f"Unknown format {format!r}. Allowed: {', '.join(FORMATS)}.")
        config = _configured(find_preset(preset), guidance=guidance, temperature=temperature)
        self._check_targets(targets)
        columns = {name: self._column(name, values) for name, values in conditions.items()}
        try:
            known = self.model.condition_tokens(columns)
        except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"The values of {', '.join(columns)} do not have the form of the shards ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:100]}). See docs/formats.md."
            ) from error
        return Prepared(known, common_length(known), tuple(dict.fromkeys(targets)), config, seed, format)

    def answer(self, requests: Sequence[Prepared]) -> list[dict[str, Any]]:
        """Return the answers, each by target: an array (B, …) or a list of B texts, dicts or base64 PNG files."""
        groups: dict[tuple[Any, ...], list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(request.group(), []).append(index)
        answers: list[dict[str, Any]] = [{} for _ in requests]
        for members in groups.values():
            first = requests[members[0]]
            known = {name: _stacked([requests[index].known[name] for index in members]) for name in first.known}
            seeds = [derive_seed(requests[i].seed, "sample", row) for i in members for row in range(requests[i].count)]
            found = self.model.generate(known, first.targets, preset=first.config, seeds=seeds)
            start = 0
            for index in members:
                rows = slice(start, start := start + requests[index].count)
                answers[index] = {name: formatted(name, v[rows], requests[index].image_format) for name, v in found.items()}
        return answers

    def _check_targets(self, targets: Sequence[str]) -> None:
        if isinstance(targets, str) or not targets:
            raise ValueError(
                f"`targets` is {targets!r}; give a list of labels, e.g. ['depth']. Known: {', '.join(self.targets)}."
            )
        for target in targets:
            if base_name(target) not in self.targets:
                raise ValueError(unknown_name("target", target, self.targets))
            self.model.model.config.index(self.model.target_name(target))  # the resolution exists

    def _column(self, name: str, values: Sequence[Any]) -> Any:
        """Return one condition of all samples, as the model takes it."""
        if base_name(name) not in self.inputs:
            raise ValueError(unknown_name("input", name, self.inputs))
        read: list[Any] = [None if value is None else self._read(name, value) for value in values]
        shapes = {value.shape for value in read if isinstance(value, np.ndarray)}
        if len(shapes) > 1:
            raise ValueError(
                f"Input {name!r} has samples of different shapes: {sorted(shapes)}. Send one request for each shape."
            )
        return np.stack(read) if shapes and all(value is not None for value in read) else read

    def _read(self, name: str, value: Any) -> Any:
        """Return one sample's value, read and checked."""
        label = LABELS[base_name(name)]
        if isinstance(value, str | Path) and label.dtype != "str":  # a request must never name a file of the server
            raise ValueError(f"Input {name!r} is text; it must be an array or the bytes of a file.")
        if label.name == "rgb":
            side = self.model.image_side(name)
            return _image(name, value, side) if isinstance(value, bytes) else as_image(value, side)
        if label.kind == "boxes":
            check_boxes(name, value)
        if isinstance(value, bytes):
            is_png_depth = label.kind == "depth" and value.startswith(PNG_MAGIC)
            value = _meters(name, value) if is_png_depth else decode(label.name, value)
        axes = NUM_AXES.get(label.kind)
        if axes and (not isinstance(value, np.ndarray) or value.ndim != axes):
            shape = value.shape if isinstance(value, np.ndarray) else type(value).__name__
            raise ValueError(f"Input {name!r} of one sample has shape {shape}; it must have {axes} axes.")
        return prepare(self.model, name, value)


def _configured(config: GenerationConfig, **changes: float | None) -> GenerationConfig:
    """Return the settings with another guidance or temperature for all targets."""
    given = {name: value for name, value in changes.items() if value is not None}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise ValueError(f"`{name}` is {value!r}; it must be a number of 0 or more.")
    if "temperature" in given:
        given["temperature_schedule"] = "constant"  # type: ignore[assignment]  # a schedule would override the number

    def changed(target: TargetConfig) -> TargetConfig:
        return TargetConfig.model_validate(target.model_dump() | given)

    try:
        special = {name: changed(target) for name, target in config.special.items()}
        general = {"grids": changed(config.grids), "sequences": changed(config.sequences), "special": special}
        return config.model_copy(update=general) if given else config
    except ValidationError as error:
        raise ValueError(f"{given} is not allowed: {error.errors()[0]['msg']}.") from error


def _image(name: str, content: bytes, side: int) -> np.ndarray:
    try:
        return clean_image(content, READABLE, side)
    except Unusable as reason:
        raise ValueError(
            f"Input {name!r}: {reason}. Use a JPEG, PNG, WebP, GIF, BMP or TIFF file of up to {MAX_PIXELS:,} pixels."
        ) from None


def check_boxes(name: str, value: Any) -> None:
    """Raise ValueError unless a value is a dict of instances with boxes from 0 to 1 and class names."""
    form = '{"instances": [{"box": [xmin, ymin, xmax, ymax], "class_name": "..."}]} with sides from 0 to 1'
    instances = value.get("instances") if isinstance(value, dict) else None
    is_valid = isinstance(instances, list) and all(
        isinstance(one, dict)
        and isinstance(one.get("class_name"), str)
        and isinstance(one.get("score", 1.0), int | float)
        and isinstance(one.get("box"), list | tuple)
        and len(one["box"]) == 4
        and all(isinstance(s, int | float) and not isinstance(s, bool) and 0 <= s <= 1 for s in one["box"])
        for one in instances
    )
    if not is_valid:
        raise ValueError(f"Input {name!r} must be {form}.")


def _stacked(parts: list[torch.Tensor]) -> torch.Tensor:
    """Concatenate tokens along samples; sequences are padded with 0 to the longest, which shows nothing."""
    if parts[0].ndim != 2:
        return torch.cat(parts)
    longest = max(part.shape[1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, longest - part.shape[1])) for part in parts])


def formatted(name: str, values: Any, image_format: str) -> Any:
    """Return the values of one target, for "png" with images as the base64 of PNG files."""
    label = LABELS[base_name(name)]
    if image_format == "array" or not (label.extension == "png" or label.kind == "depth"):
        return values
    return [base64.b64encode(_png(label.name, value)).decode() for value in values]


def _png(name: str, value: np.ndarray) -> bytes:
    if LABELS[name].kind != "depth":
        return encode(name, value)  # lossless, as in the shards
    millimeters = np.rint(value.astype(np.float64) * MILLIMETERS).clip(0, 65_535).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(millimeters).save(buffer, "PNG")
    return buffer.getvalue()


def _meters(name: str, content: bytes) -> np.ndarray:
    """Return depth from a PNG of 16-bit millimeters, float16 (H, W)."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.mode not in ("I;16", "I"):
                raise ValueError(f"Input {name!r} is a PNG of mode {image.mode}; depth must be 16-bit gray, in millimeters.")
            return (np.asarray(image) / MILLIMETERS).astype(np.float16)
    except OSError as error:
        raise ValueError(f"Input {name!r} is a damaged PNG ({error}). Send 16-bit gray, in millimeters.") from error
