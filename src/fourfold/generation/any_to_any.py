"""The model for users: values of any labels in, values of any labels out, from one self-contained folder.

model = AnyToAny.load(folder)
model.predict({"rgb": images}, ["depth", "caption"])   # → {"depth": meters (B, H, W), "caption": list of texts}
"""

# B samples, H W image height and width, L tokens, D width

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from fourfold.generation.conditions import MISSING, Conditions, visible_batch
from fourfold.generation.config import GenerationConfig, base_name, find_modality, find_preset
from fourfold.generation.decoding import SpecialTokenIds, append_end, generate_tokens
from fourfold.modalities import LABELS, TOKEN_MODALITIES, target_of
from fourfold.model.files import load_model, save_model
from fourfold.model.fourm import FourM
from fourfold.seeds import derive_seed
from fourfold.tokenizers.tokenizer_set import TokenizerSet

MODEL_FOLDER = "model"
TOKENIZERS_FOLDER = "tokenizers"
GAP = "___"  # marks a part of a condition text that is to be generated


class AnyToAny:
    """A 4M model with its tokenizers."""

    def __init__(self, model: FourM, tokenizers: TokenizerSet):
        self.model, self.tokenizers = model.eval(), tokenizers
        self.special_ids = SpecialTokenIds(tokenizers.text.eos_id, tuple(tokenizers.text.sentinel_ids))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder that `save` wrote; raises ValueError when it is not complete."""
        return cls(load_model(folder / MODEL_FOLDER), TokenizerSet.load(folder / TOKENIZERS_FOLDER))

    def save(self, folder: Path) -> None:
        """Write model and tokenizers; the folder is self-contained and can be moved."""
        self.tokenizers.save(folder / TOKENIZERS_FOLDER)
        save_model(self.model, folder / MODEL_FOLDER)

    def predict(
        self,
        conditions: Mapping[str, Any],
        targets: Sequence[str],
        *,
        preset: str | GenerationConfig = "greedy",
        weights: Mapping[str, float] | None = None,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        batch_size: int = 64,
    ) -> dict[str, Any]:
        """Return decoded targets from any conditions; both by label, in the formats of the shards.

        Args:
            conditions: by label, for all samples; None for a sample that lacks it. `rgb@448` is `rgb` at that
                resolution, for models with several. `___` in a caption is a gap, filled if `caption` is a target. A
                token modality (`tok_depth`, or `caption` with ids) has int values (B, L): -1 where a grid is to be
                filled, 0 after the end of a sequence.
            targets: labels or token modalities, generated in this order.
            preset: a name of `PRESETS`, or settings.
            weights: of conditions, 1 for those not named; a negative weight steers away from its condition.
            seed: source of randomness; sample i depends only on (seed, i).
            seeds: one for each sample, instead of `seed`.
            batch_size: samples computed at once.

        Raises:
            ValueError: a label is unknown, conditions have different lengths, or there is no condition.
        """
        chosen = find_preset(preset) if isinstance(preset, str) else preset
        names = {target: self.target_name(target) for target in targets}
        known = self.condition_tokens(conditions)
        count = _common_length(known)
        if seeds is None:
            seeds = [derive_seed(seed, "sample", index) for index in range(count)]
        by_token = {self._weighted_name(name, known): value for name, value in (weights or {}).items()}
        batches: dict[str, list[np.ndarray]] = {target: [] for target in targets}
        for part in _slices(count, batch_size):
            batch = {name: value[part] for name, value in known.items()}
            found = generate_tokens(self.model, batch, list(names.values()), seeds[part], chosen, self.special_ids, by_token)
            for target, name in names.items():
                batches[target].append(found[name].cpu().numpy())
        return {
            target: self.tokenizers.decode(self._stored(target, names[target]), _joined(parts))
            for target, parts in batches.items()
        }

    def features(self, conditions: Mapping[str, Any], batch_size: int = 64) -> np.ndarray:
        """Return encoder features float32 (B, D), averaged over visible tokens, for retrieval and probes."""
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

    def image_side(self, name: str) -> int:
        """Return the pixels per side of the condition `rgb`, or `rgb@32`; raises ValueError if the model has none."""
        sizes = self.model.config.pixel_sizes
        if not sizes:
            raise ValueError(f"This model reads no pixels. Its modalities: {', '.join(self.model.config.names)}.")
        height, _ = sizes.get(self.token_name(name), next(iter(sizes.values())))
        return height

    def digest(self) -> str:
        """Return a SHA-256 over weights and tokenizers, for fingerprints."""
        weights = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        return hashlib.sha256(safetensors.torch.save(weights) + self.tokenizers.digest().encode()).hexdigest()

    def condition_tokens(self, conditions: Mapping[str, Any]) -> Conditions:
        """Return the model's input for values by label: pixels unchanged, all else as tokens, texts with EOS."""
        if not conditions:
            raise ValueError("Give at least one condition, e.g. {'rgb': images}.")
        return {self.token_name(name): self._tokens(name, values) for name, values in conditions.items()}

    def token_name(self, name: str) -> str:
        """Return the modality of a label as a condition: pixels if the model reads any, tokens otherwise."""
        known = self.model.config.names
        label_name, _, resolution = name.partition("@")
        if label_name not in LABELS and label_name in TOKEN_MODALITIES and not resolution:
            return find_modality(label_name, known)
        pixels = [m.name for m in TOKEN_MODALITIES.values() if m.label == label_name and m.kind == "pixels"]
        seen = (find_modality(f"{pixel}@{resolution}" if resolution else pixel, known) for pixel in pixels)
        return next((pixel for pixel in seen if pixel in known), self.target_name(name))

    def target_name(self, name: str) -> str:
        """Return the modality of a label or a token modality as a target, at the resolution in its name, if any."""
        label_name, _, resolution = name.partition("@")
        is_token = label_name not in LABELS and label_name in TOKEN_MODALITIES
        token_name = label_name if is_token else target_of(label_name).name
        return f"{token_name}@{resolution}" if resolution else find_modality(token_name, self.model.config.names)

    def _stored(self, name: str, token_name: str) -> str:
        """Return the name of a label for the tokenizers: with a resolution only if it is not their default."""
        return token_name if "@" in token_name and token_name in self.tokenizers.grids() else base_name(name)

    def _weighted_name(self, name: str, known: Conditions) -> str:
        """Return the condition that a weight is for; a label that is generated first becomes a condition as tokens."""
        return self.token_name(name) if self.token_name(name) in known else self.target_name(name)

    def _tokens(self, name: str, values: Any) -> Tensor:
        """Return the condition of all samples, including those that lack it (None)."""
        given = [row for row, value in enumerate(values) if value is not None]
        if len(given) == len(values):
            return self._given_tokens(name, values)
        if not given:
            raise ValueError(f"Condition {name!r} is None for every sample. Leave it out.")
        some = [values[row] for row in given]
        found = self._given_tokens(name, np.stack(some) if isinstance(some[0], np.ndarray) else some)
        kind = self.model.config.modality(self.token_name(name)).kind
        nothing = 0 if kind in ("sequence", "vectors") else MISSING
        dtype = torch.int16 if found.dtype == torch.uint8 else found.dtype  # so that pixels can be MISSING
        everything = torch.full((len(values), *found.shape[1:]), nothing, dtype=dtype)
        everything[given] = found.to(dtype)
        return everything

    def _given_tokens(self, name: str, values: Any) -> Tensor:
        kind = self.model.config.modality(self.token_name(name)).kind
        if kind == "pixels":
            return torch.from_numpy(np.ascontiguousarray(values))
        is_array = isinstance(values, np.ndarray | Tensor) and np.ndim(values) > 0
        if is_array and (kind == "sequence" or base_name(name) not in LABELS):
            return torch.as_tensor(values).long()
        if kind == "sequence" and any(isinstance(value, str) and GAP in value for value in values):
            return torch.nn.utils.rnn.pad_sequence([torch.tensor(self._with_gaps(value)) for value in values], True)
        known = self._stored(name, self.token_name(name))
        tokens = torch.from_numpy(np.asarray(self.tokenizers.tokens(known, values)).astype(np.int64))
        return append_end(tokens, self.special_ids.end) if kind == "sequence" else tokens

    def _with_gaps(self, text: str) -> list[int]:
        """Return the ids of a caption with successive sentinels as gaps, and EOS."""
        parts = re.split(rf"(?:{GAP}\s*)+", text)  # adjacent gaps are one: masking never puts two sentinels in a row
        first, *rest = (self.tokenizers.text.encode_caption(part) for part in parts)
        if len(rest) + 2 > len(self.special_ids.sentinels):
            raise ValueError(f"A caption has {len(rest)} gaps; allowed: up to {len(self.special_ids.sentinels) - 2}.")
        filled = [token for gap, part in enumerate(rest, 1) for token in (self.special_ids.sentinels[gap], *part)]
        return [*first, *filled, self.special_ids.end]


def _common_length(known: Conditions) -> int:
    lengths = {name: len(value) for name, value in known.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"All conditions must have the same number of samples, got {lengths}.")
    return next(iter(lengths.values()))


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(first, min(first + size, count)) for first in range(0, count, size))


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Concatenate along samples; pad sequences with 0 to the longest."""
    longest = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, longest - part.shape[1]))) for part in parts])
