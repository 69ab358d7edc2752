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

from fourfold.digests import check_digests, forget_digests, write_recorded_json
from fourfold.generation.conditions import MISSING, Conditions, visible_batch
from fourfold.generation.config import GenerationConfig, base_name, find_modality, find_preset
from fourfold.generation.decoding import SpecialTokenIds, append_end, generate_tokens
from fourfold.generation.released import export_released_set, load_released_set
from fourfold.generation.values import pixels, stored
from fourfold.modalities import LABELS, TOKEN_MODALITIES, target_of
from fourfold.model.files import load_model, save_model, state
from fourfold.model.fourm import FourM
from fourfold.seeds import derive_seed
from fourfold.storage import read_json
from fourfold.tokenizers.formats import DepthFormat
from fourfold.tokenizers.released.formats import ClassIdFormat
from fourfold.tokenizers.tokenizer_set import TokenizerSet

MODEL_FOLDER = "model"
TOKENIZERS_FOLDER = "tokenizers"
PROVENANCE_FILE = "released.json"  # of imported models: where they come from
GAP = "___"  # marks a part of a condition text that is to be generated


class AnyToAny:
    """A 4M model with its tokenizers."""

    def __init__(self, model: FourM, tokenizers: TokenizerSet, provenance: dict[str, Any] | None = None):
        self.model, self.tokenizers, self.provenance = model.eval(), tokenizers, provenance
        self.special_ids = SpecialTokenIds(tokenizers.text.eos_id, tuple(tokenizers.text.sentinel_ids))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder that `save` wrote; raises ValueError when it is not complete."""
        model, tokenizers = load_model(folder / MODEL_FOLDER), TokenizerSet.load(folder / TOKENIZERS_FOLDER)
        if not (folder / PROVENANCE_FILE).is_file():
            return cls(model, tokenizers)
        check_digests(folder, "Import the released files again.", PROVENANCE_FILE)
        provenance = read_json(folder / PROVENANCE_FILE)
        model.released_metadata = provenance["metadata"]
        return cls(model, tokenizers, provenance)

    @classmethod
    def from_released(cls, folder: Path | str) -> Self:
        """Read a folder of released 4M files: a transformer, tokenizers and the text tokenizer.

        `provenance` then has the names, sizes and SHA-256 of the files, and their license.

        Raises:
            ValueError: a file is missing or damaged, or the files do not belong together.
        """
        return cls(*load_released_set(Path(folder)))

    def export_released(self, folder: Path | str) -> list[Path]:
        """Write the released layout, the inverse of `from_released`; return the files.

        Raises:
            ValueError: a tokenizer was trained here: the reference has no network of that kind.
        """
        return export_released_set(self.model, self.tokenizers, Path(folder))

    def save(self, folder: Path) -> None:
        """Write model and tokenizers; the folder is self-contained and can be moved."""
        self.tokenizers.save(folder / TOKENIZERS_FOLDER)
        save_model(self.model, folder / MODEL_FOLDER)
        if self.provenance is not None:
            write_recorded_json(folder, PROVENANCE_FILE, self.provenance)
        else:  # of an imported model that was here before
            forget_digests(folder, [PROVENANCE_FILE])
            (folder / PROVENANCE_FILE).unlink(missing_ok=True)

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
            conditions: by label, for all samples; None for a sample that lacks it. Images are uint8 0-255 or floats 0-1,
                normals also floats from -1 to 1, depth is in meters. `rgb@448` is `rgb` at that
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
        known = self.condition_tokens(conditions)
        if seeds is None:
            seeds = [derive_seed(seed, "sample", index) for index in range(common_length(known))]
        return self.generate(known, targets, preset=preset, weights=weights, seeds=seeds, batch_size=batch_size)

    def generate(
        self,
        known: Conditions,
        targets: Sequence[str],
        *,
        preset: str | GenerationConfig,
        seeds: Sequence[int],
        weights: Mapping[str, float] | None = None,
        batch_size: int = 64,
    ) -> dict[str, Any]:
        """Return decoded targets from the result of `condition_tokens`; the other arguments are those of `predict`."""
        chosen = find_preset(preset) if isinstance(preset, str) else preset
        names = {target: self.target_name(target) for target in targets}
        count = common_length(known)
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
        for part in _slices(common_length(known), batch_size):
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
            raise ValueError(f"This model reads no pixels. Give one of its modalities: {', '.join(self.model.config.names)}.")
        height, _ = sizes.get(self.token_name(name), next(iter(sizes.values())))
        return height

    def lacks(self, source: str, target: str) -> str:
        """Return why this model cannot predict label `target` from label `source`; "" if it can."""
        config, shown, wanted = self.model.config, self.token_name(source), self.target_name(target)
        if shown not in config.names or config.modality(shown).sides == "target":
            return f"the model does not read {source!r}"
        if wanted not in config.names or not config.modality(wanted).can_be_target:
            return f"the model does not predict {target!r}"
        needed = [target] if config.modality(shown).kind == "pixels" else [source, target]
        known = {*self.tokenizers.visual, *self.tokenizers.sequences, *self.tokenizers.config.vectors}
        return next((f"the model has no tokenizer of {name!r}" for name in needed if base_name(name) not in known), "")

    @property
    def has_relative_depth(self) -> bool:
        """Whether its depth has no unit: a tokenizer standardizes each image."""
        return "depth" in self.tokenizers.visual and not isinstance(self.tokenizers.visual["depth"].format, DepthFormat)

    @property
    def num_classes(self) -> int | None:
        """Number of classes of its segmentation, without "none"; None if it is that of the data set that it learned."""
        found = self.tokenizers.visual["semseg"].format if "semseg" in self.tokenizers.visual else None
        return found.num_classes - found.shift if isinstance(found, ClassIdFormat) else None

    def digest(self) -> str:
        """Return a SHA-256 over weights and tokenizers, for fingerprints."""
        return self.digests()["model"]

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of the file of the weights ("weights"), of the tokenizers, and of both ("model")."""
        weights, tokenizers = safetensors.torch.save(state(self.model)), self.tokenizers.digest()
        digest = hashlib.sha256(weights)
        of_weights = digest.hexdigest()
        digest.update(tokenizers.encode())
        return {"model": digest.hexdigest(), "weights": of_weights, "tokenizers": tokenizers}

    def condition_tokens(self, conditions: Mapping[str, Any]) -> Conditions:
        """Return the model's input for values by label: pixels unchanged, all else as tokens, texts with EOS."""
        if not conditions:
            raise ValueError("Give at least one condition, e.g. {'rgb': images}.")
        return {self.token_name(name): self._tokens(name, values) for name, values in conditions.items()}

    def target_tokens(self, name: str, values: Any) -> Tensor:
        """Return int64 tokens (B, L) of a label in the modality that is generated for it, for values as in `predict`."""
        found = self.tokenizers.tokens(self._stored(name, self.target_name(name)), self._stored_values(name, values))
        return torch.from_numpy(np.asarray(found).astype(np.int64))

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
        nothing: float = 0 if kind in ("sequence", "vectors") else MISSING
        dtype = torch.int16 if found.dtype == torch.uint8 else found.dtype  # so that pixels can be MISSING
        nothing = float("nan") if kind == "pixels" and dtype.is_floating_point else nothing
        everything = torch.full((len(values), *found.shape[1:]), nothing, dtype=dtype)
        everything[given] = found.to(dtype)
        return everything

    def _given_tokens(self, name: str, values: Any) -> Tensor:
        kind = self.model.config.modality(self.token_name(name)).kind
        if kind == "pixels":
            return pixels(name, values)
        is_array = isinstance(values, np.ndarray | Tensor) and np.ndim(values) > 0
        if is_array and (kind == "sequence" or base_name(name) not in LABELS):
            return torch.as_tensor(values).long()
        if kind == "sequence" and any(isinstance(value, str) and GAP in value for value in values):
            return torch.nn.utils.rnn.pad_sequence([torch.tensor(self._with_gaps(value)) for value in values], True)
        known = self._stored(name, self.token_name(name))
        tokens = torch.from_numpy(np.asarray(self.tokenizers.tokens(known, self._stored_values(name, values))).astype(np.int64))
        return append_end(tokens, self.special_ids.end) if kind == "sequence" else tokens

    def _stored_values(self, name: str, values: Any) -> Any:
        """Return values in the units of the shards; depth needs none if its tokenizer standardizes each image."""
        label_name = base_name(name)
        if label_name not in LABELS:
            return values
        return stored(label_name, values, is_metric=not self.has_relative_depth)

    def _with_gaps(self, text: str) -> list[int]:
        """Return the ids of a caption with successive sentinels as gaps, and EOS."""
        parts = re.split(rf"(?:{GAP}\s*)+", text)  # adjacent gaps are one: masking never puts two sentinels in a row
        first, *rest = (self.tokenizers.text.encode_caption(part) for part in parts)
        if len(rest) + 2 > len(self.special_ids.sentinels):
            raise ValueError(f"A caption has {len(rest)} gaps; allowed: up to {len(self.special_ids.sentinels) - 2}.")
        filled = [token for gap, part in enumerate(rest, 1) for token in (self.special_ids.sentinels[gap], *part)]
        return [*first, *filled, self.special_ids.end]


def common_length(known: Conditions) -> int:
    """Return the number of samples; raises ValueError if conditions differ in it."""
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
