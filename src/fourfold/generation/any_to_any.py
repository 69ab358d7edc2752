"""The model as its users see it: values of any labels in, values of any labels out; a folder that needs nothing else.

model = AnyToAny.load(folder)
model.predict({"rgb": images}, ["depth", "caption"])   # → {"depth": metres (B, H, W), "caption": list of texts}
"""

# B samples, H W image height and width, L tokens, D width

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from fourfold.generation.conditions import Conditions, visible_batch
from fourfold.generation.config import GenerationConfig, preset
from fourfold.generation.generate import SpecialIds, append_end, generate
from fourfold.modalities import TOKEN_MODALITIES, label, target_of
from fourfold.model.files import load_model, save_model
from fourfold.model.fourm import FourM
from fourfold.seeds import derive_seed
from fourfold.tokenizers.tokenizer_set import TokenizerSet

MODEL_FOLDER = "model"
TOKENIZERS_FOLDER = "tokenizers"


class AnyToAny:
    """A 4M model with its tokenizers."""

    def __init__(self, model: FourM, tokenizers: TokenizerSet):
        self.model, self.tokenizers = model.eval(), tokenizers
        self.special_ids = SpecialIds(tokenizers.text.eos_id, tuple(tokenizers.text.sentinel_ids))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder written by `save`. Raises ValueError when it is not whole."""
        return cls(load_model(folder / MODEL_FOLDER), TokenizerSet.load(folder / TOKENIZERS_FOLDER))

    def save(self, folder: Path) -> None:
        """Write model and tokenizers; the folder can be moved and needs nothing else."""
        self.tokenizers.save(folder / TOKENIZERS_FOLDER)
        save_model(self.model, folder / MODEL_FOLDER)

    def predict(
        self,
        conditions: Mapping[str, Any],
        targets: Sequence[str],
        *,
        preset_name: str = "greedy",
        config: GenerationConfig | None = None,
        weights: Mapping[str, float] | None = None,
        seed: int = 0,
        batch_size: int = 64,
    ) -> dict[str, Any]:
        """Return the targets, decoded, from any conditions; both by label, in the formats of the codecs.

        `config` replaces the preset. Sample i's randomness comes from (seed, i) alone. Raises ValueError for unknown labels,
        conditions of different lengths, or no condition.
        """
        chosen = config or preset(preset_name)
        names = {target: target_of(target).name for target in targets}
        known = self.condition_tokens(conditions)
        count = _common_length(known)
        seeds = [derive_seed(seed, "sample", index) for index in range(count)]
        by_token = {self.token_name(name): value for name, value in (weights or {}).items()}
        parts: dict[str, list[np.ndarray]] = {target: [] for target in targets}
        for part in _slices(count, batch_size):
            batch = {name: value[part] for name, value in known.items()}
            found = generate(self.model, batch, list(names.values()), seeds[part], chosen, self.special_ids, by_token)
            for target, name in names.items():
                parts[target].append(found[name].cpu().numpy())
        return {target: self.tokenizers.decode(target, _joined(part)) for target, part in parts.items()}

    def features(self, conditions: Mapping[str, Any], batch_size: int = 64) -> np.ndarray:
        """Return (B, D) float32 encoder features, the mean over visible tokens: for retrieval and probes."""
        known = self.condition_tokens(conditions)
        rows = []
        for part in _slices(_common_length(known), batch_size):
            batch = {name: value[part] for name, value in known.items()}
            with torch.inference_mode():
                size = len(next(iter(batch.values())))
                encoding = self.model.encode(visible_batch(batch, self.model.config, size, self.model.device))
                count = encoding.keep_BN.sum(1, keepdim=True).clamp(min=1)
                rows.append((encoding.features_BND.sum(1) / count).cpu().numpy())
        return np.concatenate(rows)

    @property
    def image_size(self) -> int:
        """Pixels per side of the images that the model sees. Raises ValueError when it sees none."""
        pixels = next((m for m in self.model.config.modalities if m.kind == "pixels"), None)
        if pixels is None or pixels.grid is None:
            raise ValueError("This model sees no pixels; it knows " + ", ".join(self.model.config.names) + ".")
        return pixels.grid[0] * self.model.config.patch_size

    def digest(self) -> str:
        """Return a SHA-256 over weights and tokenizers, for fingerprints."""
        weights = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        return hashlib.sha256(safetensors.torch.save(weights) + self.tokenizers.digest().encode()).hexdigest()

    def condition_tokens(self, conditions: Mapping[str, Any]) -> Conditions:
        """Return what the transformer sees of some labels' values: pixels as they are, all else as tokens, texts with EOS."""
        if not conditions:
            raise ValueError("Give at least one condition, e.g. {'rgb': images}.")
        return {self.token_name(name): self._tokens(name, values) for name, values in conditions.items()}

    def token_name(self, name: str) -> str:
        """Return the modality by which a label is a condition: pixels if the model sees any, tokens otherwise."""
        label(name)
        pixels = [m.name for m in TOKEN_MODALITIES.values() if m.label == name and m.kind == "pixels"]
        return next((pixel for pixel in pixels if pixel in self.model.config.names), target_of(name).name)

    def _tokens(self, name: str, values: Any) -> Tensor:
        token_name = self.token_name(name)
        modality = self.model.config.modality(token_name)
        if modality.kind == "pixels":
            return torch.from_numpy(np.ascontiguousarray(values))
        tokens = torch.from_numpy(np.asarray(self.tokenizers.tokens(name, values)).astype(np.int64))
        return append_end(tokens, self.special_ids.end) if modality.kind == "sequence" else tokens


def _common_length(known: Conditions) -> int:
    lengths = {name: len(value) for name, value in known.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"All conditions must have equally many samples, got {lengths}.")
    return next(iter(lengths.values()))


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(first, min(first + size, count)) for first in range(0, count, size))


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Join along samples; sequences are padded with 0 to the longest."""
    longest = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, longest - part.shape[1]))) for part in parts])
