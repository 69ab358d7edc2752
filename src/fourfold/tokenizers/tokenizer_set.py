"""All tokenizers of a run as one object: stored values of any label in, token ids out, and back."""

# B batch, L tokens of a sample

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fourfold.digests import check_digests, write_recorded_json
from fourfold.modalities import LABELS, base_name, target_of, token_modality
from fourfold.seeds import derive_seed
from fourfold.storage import read_json
from fourfold.suggestions import unknown_name
from fourfold.tokenizers import REMEDY
from fourfold.tokenizers.config import TokenizersConfig
from fourfold.tokenizers.diffusion_decoder import DiffusionDecoder
from fourfold.tokenizers.released.visual import load_visual_tokenizer
from fourfold.tokenizers.text.sequences import padded, padded_vectors, sequence_format
from fourfold.tokenizers.text.tokenizer import TextTokenizer
from fourfold.tokenizers.visual_tokenizer import WEIGHTS_FILE, VisualTokenizer

CONFIG_FILE = "tokenizers.json"
TEXT_FILE = "text.json"
DIFFUSION_FOLDER = "diffusion"  # in a tokenizer's folder
DecoderKind = Literal["vq", "diffusion"]


class TokenizerSet:
    """A VQ-VAE for each dense label and one text tokenizer for captions, boxes and other sequences.

    Every method takes a label (`depth`) or its token modality (`tok_depth`): both name the same tokenizer.
    `tok_depth@32` names it as well, for images of 32 × 32 pixels.
    """

    def __init__(
        self,
        config: TokenizersConfig,
        text: TextTokenizer,
        visual: dict[str, VisualTokenizer],
        diffusion: dict[str, DiffusionDecoder] | None = None,
    ):
        self.config, self.text, self.visual, self.diffusion = config, text, visual, diffusion or {}
        lengths = {"caption": config.text.caption_tokens} | config.sequences
        if config.text.det_tokens is not None:
            lengths["det"] = config.text.det_tokens
        self.sequences = {name: sequence_format(name, text, length) for name, length in lengths.items()}

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of an image's tokens, at its stored size."""
        return self.config.grid

    def grids(self) -> dict[str, tuple[int, int]]:
        """Return rows and columns of each token modality that is a grid, including other resolutions (`tok_rgb@32`).

        Raises:
            ValueError: a configured resolution is not a whole number of tokens.
        """
        grids = {}
        for name in self.visual:
            token_name = target_of(name).name
            grids[token_name] = self.visual[name].own_grid or self.config.grid_of(name)
            patch = self.visual[name].model.shape.patch
            for side in self.config.resolutions.get(name, ()):
                if side % patch:
                    raise ValueError(
                        f"resolutions.{name} has {side} pixels, which is not a whole number of tokens of {patch} × {patch} "
                        f"pixels. Choose a multiple of {patch}."
                    )
                grids[f"{token_name}@{side}"] = (side // patch, side // patch)
        return grids

    def pixel_sides(self) -> tuple[int, ...]:
        """Return the sides, in pixels, at which the model sees images besides the stored one."""
        return self.config.resolutions.get("rgb", ())

    @property
    def modalities(self) -> list[str]:
        """Token modalities that this set makes, sorted: `caption`, `det`, `tok_clip`, ..."""
        return sorted([*self.grids(), *(target_of(name).name for name in self.sequences), *self.config.vectors])

    @property
    def vector_widths(self) -> dict[str, int]:
        """Widths of the modalities that the model reads as vectors."""
        return {name: width for name, (_, width) in self.config.vectors.items()}

    def vocabulary_sizes(self) -> dict[str, int]:
        """Return the number of ids of each token modality."""
        sizes = {name: self.visual[self._label(name)].vocabulary_size for name in self.grids()}
        return sizes | dict.fromkeys(self.sequences, self.text.vocabulary_size)

    def lengths(self) -> dict[str, int]:
        """Return the length L at which each token modality is stored; sequences without EOS."""
        grids = {name: rows * columns for name, (rows, columns) in self.grids().items()}
        sequences = {name: sequence.max_tokens for name, sequence in self.sequences.items()}
        return grids | sequences | {name: length for name, (length, _) in self.config.vectors.items()}

    def tokens(self, name: str, values: Any, rng: np.random.Generator | None = None) -> np.ndarray:
        """Return ids int16 (B, L) of stored values; of labels that are vectors, float16 (B, L, width).

        Args:
            name: a label or a token modality. Images must have the size that it names: the stored one, or that after
                the @.
            values: as the shards hold them: arrays (B, ...), texts, or dicts.
            rng: draws what a sequence leaves to chance (which palette, the order of a pose's blocks); None writes
                sequences in full and in a fixed order.

        Returns:
            Grids row by row; sequences cut at `lengths()` and padded with 0.

        Raises:
            ValueError: the name is unknown, or images have another size.
        """
        label_name = self._label(name)
        if label_name in self.sequences:
            sequence = self.sequences[label_name]
            return padded([sequence.encode(value, rng) for value in values], sequence.max_tokens)
        if label_name in self.config.vectors:
            return padded_vectors(values, *self.config.vectors[label_name])
        tokenizer, grid = self.visual[label_name], self._grid(name)
        return np.concatenate([tokenizer.tokens(batch, grid) for batch in self._batches(np.asarray(values))])

    def decode(self, name: str, tokens: Any, decoder: DecoderKind = "vq", seed: int = 0) -> Any:
        """Return the values of ids (B, L), as the shards hold them: the inverse of `tokens`.

        Args:
            name: a label or a token modality.
            tokens: ids; sequences may have any length.
            decoder: the VQ-VAE's own, or a diffusion decoder.
            seed: source of the diffusion decoder's noise, derived from (seed, i) for sample i.

        Raises:
            ValueError: the name is unknown, the ids are impossible, or the label has no such decoder.
        """
        label_name = self._label(name)
        if decoder == "diffusion":
            return self._denoised(name, np.asarray(tokens), seed)
        if label_name in self.sequences:
            return [self.sequences[label_name].decode(row) for row in tokens]
        if label_name in self.config.vectors:
            return [row[row.any(1)] for row in np.asarray(tokens)]  # rows of zeros are padding
        tokenizer, grid = self.visual[label_name], self._grid(name)
        return np.concatenate([tokenizer.decode(batch, grid) for batch in self._batches(np.asarray(tokens))])

    def _denoised(self, name: str, tokens_BL: np.ndarray, seed: int) -> np.ndarray:
        label_name, grid = self._label(name), self._grid(name)
        if label_name not in self.diffusion:
            known = ", ".join(self.diffusion) or "none"
            raise ValueError(
                f"{label_name!r} has no diffusion decoder. Labels with one: {known}. "
                "Configure it in tokenizer_training.diffusion."
            )
        seeds = [derive_seed(seed, "diffusion", label_name, index) for index in range(len(tokens_BL))]
        batches = zip(self._batches(tokens_BL), self._batches(seeds), strict=True)
        return np.concatenate([self.diffusion[label_name].decode(batch, own_seeds, grid) for batch, own_seeds in batches])

    def digest(self) -> str:
        """Return a SHA-256 over settings, vocabulary and weights, for fingerprints."""
        digest = hashlib.sha256(json.dumps([self.config.model_dump(mode="json"), self.text.vocabulary]).encode())
        for name, tokenizer in sorted(self.visual.items()):
            digest.update(name.encode() + json.dumps(tokenizer.format.statistics, sort_keys=True).encode())
            for key, tensor in tokenizer.model.state_dict().items():
                digest.update(key.encode() + tensor.contiguous().cpu().numpy().tobytes())
        for name, decoder in sorted(self.diffusion.items()):
            for key, tensor in decoder.unet.state_dict().items():
                digest.update(f"{name}/{key}".encode() + tensor.contiguous().cpu().numpy().tobytes())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write everything that `load` needs; the settings come last and mark the folder as complete."""
        self.text.save(folder / TEXT_FILE)
        for name, tokenizer in self.visual.items():
            tokenizer.save(folder / name)
        for name, decoder in self.diffusion.items():
            decoder.save(folder / name / DIFFUSION_FOLDER)
        write_recorded_json(folder, CONFIG_FILE, self.config.model_dump(mode="json"))

    @classmethod
    def load(cls, folder: Path) -> "TokenizerSet":
        """Read a folder that `save` or `train_tokenizers` wrote; raises ValueError when it is not complete."""
        if not (folder / CONFIG_FILE).exists():
            raise ValueError(f"{folder} has no complete tokenizers ({CONFIG_FILE} is missing). Run tokenizer_training first.")
        check_digests(folder, REMEDY, CONFIG_FILE, TEXT_FILE)
        config = TokenizersConfig(**read_json(folder / CONFIG_FILE))
        decoders = [f"{name}/{DIFFUSION_FOLDER}" for name in config.diffusion]
        missing = [name for name in [*config.visual, *decoders] if not (folder / name / WEIGHTS_FILE).exists()]
        if missing:
            raise ValueError(f"{folder} lacks the weights of {', '.join(missing)}. Run tokenizer_training again.")
        visual = {name: load_visual_tokenizer(folder / name) for name in config.visual}
        diffusion = {name: DiffusionDecoder.load(folder / name / DIFFUSION_FOLDER, visual[name]) for name in config.diffusion}
        return cls(config, TextTokenizer.load(folder / TEXT_FILE), visual, diffusion)

    def _grid(self, name: str) -> tuple[int, int]:
        """Return the grid that a name implies; raises ValueError for a resolution that this set does not make."""
        _, at, side = name.partition("@")
        token_name, grids = target_of(self._label(name)).name + at + side, self.grids()
        if token_name not in grids:
            raise ValueError(unknown_name("tokenizer", name, self.modalities))
        return grids[token_name]

    def _label(self, name: str) -> str:
        """Return the label that a name stands for; raises ValueError when this set has no tokenizer for it."""
        base = base_name(name)
        label_name = base if base in LABELS else token_modality(name).label
        if not any(label_name in names for names in (self.visual, self.sequences, self.config.vectors)):
            raise ValueError(unknown_name("tokenizer", name, self.modalities))
        return label_name

    def _batches(self, values: Any) -> Sequence[Any]:
        size = self.config.batch_size
        return [values[start : start + size] for start in range(0, max(1, len(values)), size)]
