"""From whole samples to `MaskedBatch`: budgets, then a mask for every modality, then one flat list for each side."""

# B samples, E modalities, G grids of one size, S sequences, P places in a grid, R = B · S, N and M budgets; vectors (B, L, W)

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from fourfold.masking.budgets import draw_budgets
from fourfold.masking.candidates import Candidates, nothing, select, sequence_candidates
from fourfold.masking.config import MaskingConfig
from fourfold.masking.spans import (
    SentinelIds,
    draw_masks,
    select_vectors,
    shuffle_chunks,
    with_eos,
    write_inputs,
    write_targets,
)
from fourfold.modalities import TOKEN_MODALITIES, base_name
from fourfold.model.batch import MaskedBatch
from fourfold.model.config import ModelConfig

KEEP_SCHEMES = ("random", "all", "binary")  # as `_keep` numbers them


class Masker:
    """Masks batches of one model's modalities; of `only` some, when a data set is to be used for these alone.

    Raises ValueError when settings and model do not fit.
    """

    def __init__(
        self, config: MaskingConfig, model: ModelConfig, special: SentinelIds, only: Collection[str] | None = None
    ) -> None:
        self.config, self.model, self.special = config, model, special
        self.used_E = np.array([only is None or name in only for name in model.names])
        for name in only or ():
            model.index(name)
        self.alphas_in_KE = np.array([self._alphas(component.alpha_in) for component in config.components])
        self.alphas_target_KE = np.array([self._alphas(component.alpha_target) for component in config.components])
        weights_K = np.array([component.weight for component in config.components])
        self.weights_K = weights_K / weights_K.sum()
        self.is_sequence_E = np.array([modality.kind == "sequence" for modality in model.modalities])
        self.vectors = next((index for index, m in enumerate(model.modalities) if m.kind == "vectors"), None)
        entries = [TOKEN_MODALITIES.get(base_name(name)) for name in model.names]
        default = {name: entry.chunk_length for name, entry in zip(model.names, entries, strict=True) if entry}
        self.chunk_lengths = default | config.chunk_lengths
        self.shuffled = {name for name, entry in zip(model.names, entries, strict=True) if entry and entry.shuffled}
        self._check()

    def __call__(self, tokens: dict[str, np.ndarray], pixels_BHWC: np.ndarray | None, rng: np.random.Generator) -> MaskedBatch:
        """Mask B samples. `tokens`: name → integers (B, L), sequences padded with 0 and without EOS; `pixels` uint8 or None.

        Vectors are floats (B, L, W), rows of zeros where there is none. A modality that is not there is fully masked: its
        share of the budget stays empty. All randomness comes from `rng`.
        """
        num_samples = len(next(iter(tokens.values())))
        seen = None if pixels_BHWC is None else self.pixels_of(pixels_BHWC.shape[1:3])
        there_E = np.array([m.name == seen if m.kind == "pixels" else m.name in tokens for m in self.model.modalities])
        there_E &= self.used_E
        component_B = rng.choice(len(self.weights_K), num_samples, p=self.weights_K)
        lengths_E = np.array([modality.num_positions for modality in self.model.modalities]) * there_E
        input_BE, target_BE = self._budgets(component_B, lengths_E, rng)
        sides = [
            (nothing(num_samples), nothing(num_samples)),  # of a data set that has none of the modalities
            *self._grids(tokens, there_E, input_BE, target_BE, rng),
            *self._sequences(tokens, there_E, component_B, input_BE, target_BE, rng),
        ]
        vectors = None
        if self.vectors is not None and there_E[self.vectors]:
            visible, vectors = self._vectors(tokens, component_B, input_BE[:, self.vectors], rng)
            sides.append((visible, nothing(num_samples)))
        in_modality, in_position, in_token, _ = select([side[0] for side in sides], self.config.input_tokens)
        targets = select([side[1] for side in sides], self.config.target_tokens)
        pixels = None if pixels_BHWC is None else torch.from_numpy(np.ascontiguousarray(pixels_BHWC))
        return MaskedBatch(in_modality, in_position, in_token, *targets, pixels, vectors)

    @property
    def pixels(self) -> str | None:
        """The pixel modality that is seen: a sample has one image. Of several resolutions the one that has an alpha.

        Raises ValueError when several have.
        """
        names = [m.name for m, used in zip(self.model.modalities, self.used_E, strict=True) if used and m.kind == "pixels"]
        seen = [name for name in names if self.alphas_in_KE[:, self.model.index(name)].any()]
        if len(seen) > 1:
            raise ValueError(
                f"A sample has room for one image; `alpha_in` names {', '.join(seen)}. Make a mixture: a data set for each."
            )
        return next(iter([*seen, *names]), None)

    def pixels_of(self, size: tuple[int, ...]) -> str | None:
        """Return the pixel modality of images of (height, width); of several that of this size, ValueError if none has it."""
        sizes = self.model.pixel_sizes
        if len(sizes) <= 1:
            return next(iter(sizes), None)
        if (name := next((name for name, known in sizes.items() if known == size), None)) is None:
            raise ValueError(f"Images of {size[0]} × {size[1]} pixels came; the model sees {sizes}.")
        return name

    def _budgets(
        self, component_B: np.ndarray, lengths_E: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw (B, E) budgets. A grid token is input or target, never both; a sequence may be asked for at full length."""
        config, num_samples = self.config, len(component_B)
        total_in = rng.integers(config.min_input_tokens or config.input_tokens, config.input_tokens + 1, num_samples)
        total_target = rng.integers(config.min_target_tokens or config.target_tokens, config.target_tokens + 1, num_samples)
        caps_BE = np.broadcast_to(lengths_E, (num_samples, len(lengths_E)))
        input_BE = draw_budgets(self.alphas_in_KE[component_B], total_in, caps_BE, rng)
        caps_BE = np.where(self.is_sequence_E, caps_BE, caps_BE - input_BE)
        return input_BE, draw_budgets(self.alphas_target_KE[component_B], total_target, caps_BE, rng)

    def _grids(
        self,
        tokens: dict[str, np.ndarray],
        there_E: np.ndarray,
        input_BE: np.ndarray,
        target_BE: np.ndarray,
        rng: np.random.Generator,
    ) -> list[tuple[Candidates, Candidates]]:
        """Select grid tokens and patches, all grids of one size at once: one permutation each, inputs first, targets next."""
        by_size: dict[int, list[int]] = {}
        for index, modality in enumerate(self.model.modalities):
            if there_E[index] and modality.kind in ("pixels", "grid"):
                by_size.setdefault(modality.num_positions, []).append(index)
        return [self._grids_of(size, indices, tokens, input_BE, target_BE, rng) for size, indices in by_size.items()]

    def _grids_of(
        self,
        size: int,
        indices: list[int],
        tokens: dict[str, np.ndarray],
        input_BE: np.ndarray,
        target_BE: np.ndarray,
        rng: np.random.Generator,
    ) -> tuple[Candidates, Candidates]:
        num_samples = len(input_BE)
        empty = np.zeros((num_samples, size), np.int64)
        ids = [tokens.get(self.model.names[index], empty) for index in indices]
        for index, grid in zip(indices, ids, strict=True):
            if grid.shape != (num_samples, size):
                raise ValueError(f"{self.model.names[index]!r} came with shape {grid.shape}, wanted {(num_samples, size)}.")
        ids_BC = np.concatenate(ids, 1).astype(np.int64)
        noise_BGP = rng.random((num_samples, len(indices), size), dtype=np.float32)
        in_BGP, target_BGP = grid_masks(noise_BGP, input_BE[:, indices], target_BE[:, indices])
        modality_BC = np.broadcast_to(np.repeat(indices, size), ids_BC.shape)
        position_BC = np.broadcast_to(np.tile(np.arange(size), len(indices)), ids_BC.shape)
        as_input = Candidates(in_BGP.reshape(ids_BC.shape), modality_BC, position_BC, ids_BC, ids_BC)
        # targets enter the decoder as the mask token, so nothing comes before them
        as_target = Candidates(target_BGP.reshape(ids_BC.shape), modality_BC, position_BC, np.zeros_like(ids_BC), ids_BC)
        return as_input, as_target

    def _sequences(
        self,
        tokens: dict[str, np.ndarray],
        there_E: np.ndarray,
        component_B: np.ndarray,
        input_BE: np.ndarray,
        target_BE: np.ndarray,
        rng: np.random.Generator,
    ) -> list[tuple[Candidates, Candidates]]:
        """Mask spans of all sequences at once: row s · B + b holds sequence s of sample b."""
        indices = np.flatnonzero(there_E & self.is_sequence_E)
        if not len(indices):
            return []
        modalities = [self.model.modalities[index] for index in indices]
        chunk_lengths = [self.chunk_lengths.get(modality.name, 1) for modality in modalities]
        num_samples, width = len(input_BE), max(tokens[modality.name].shape[1] for modality in modalities)
        ids_RL = np.zeros((len(indices), num_samples, width), np.int64)
        for row, (modality, chunk_length) in enumerate(zip(modalities, chunk_lengths, strict=True)):
            sequence = tokens[modality.name]
            if modality.name in self.shuffled:
                sequence = shuffle_chunks(sequence, chunk_length, rng)
            ids_RL[row, :, : sequence.shape[1]] = sequence
        lengths_R = np.repeat([modality.num_positions for modality in modalities], num_samples)
        texts = with_eos(ids_RL.reshape(-1, width), self.special.eos, lengths_R, np.repeat(chunk_lengths, num_samples))
        input_R, target_R = input_BE[:, indices].T.ravel(), target_BE[:, indices].T.ravel()
        keep_R = self._keep([modality.name for modality in modalities], component_B, rng)
        masked_RL = draw_masks(texts, keep_R, input_R, rng)
        in_ids, in_used = write_inputs(texts, masked_RL, self.special)
        target_ids, length_R = write_targets(texts, masked_RL, target_R, self.special, rng.integers)
        predicted = np.arange(target_ids.shape[1] - 1) < length_R[:, None] - 1  # n tokens in a row are n − 1 predictions
        as_input = sequence_candidates(in_used & (input_R > 0)[:, None], in_ids, in_ids, indices)
        as_target = sequence_candidates(predicted, target_ids[:, :-1], target_ids[:, 1:], indices)
        return [(as_input, as_target)]

    def _vectors(
        self, tokens: dict[str, np.ndarray], component_B: np.ndarray, input_B: np.ndarray, rng: np.random.Generator
    ) -> tuple[Candidates, Tensor]:
        """Select vectors, and return those alone, float32 (B, K, W); a place is the rank among them."""
        assert self.vectors is not None
        modality = self.model.modalities[self.vectors]
        vectors_BLW = tokens[modality.name]
        if vectors_BLW.ndim != 3 or vectors_BLW.shape[2] != modality.vector_width:
            raise ValueError(f"{modality.name!r} came with shape {vectors_BLW.shape}, wanted (B, L, {modality.vector_width}).")
        limit, keep_B = modality.num_positions, self._keep([modality.name], component_B, rng)
        most = min(limit, self.config.input_tokens)
        shown_BKW, count_B = select_vectors(vectors_BLW, keep_B, input_B, limit, most, rng)
        rank_BK = np.broadcast_to(np.arange(shown_BKW.shape[1]), shown_BKW.shape[:2])
        modality_BK = np.full_like(rank_BK, self.vectors)
        return Candidates(rank_BK < count_B[:, None], modality_BK, rank_BK, rank_BK, rank_BK), torch.from_numpy(shown_BKW)

    def _keep(self, names: list[str], component_B: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw with what probability the tokens of each sequence of a sample are kept: (S · B,)."""
        draws = len(names) if self.config.keep_drawn_per == "sequence" else 1
        uniform_SB = np.broadcast_to(rng.random((draws, len(component_B))), (len(names), len(component_B)))
        schemes = [[KEEP_SCHEMES.index(component.keep_of(name)) for component in self.config.components] for name in names]
        scheme_SB = np.array(schemes)[:, component_B]
        return np.select([scheme_SB == 0, scheme_SB == 1], [uniform_SB, 1.0], uniform_SB < 0.5).ravel()

    def _alphas(self, alphas: dict[str, float]) -> list[float]:
        for name in alphas:
            self.model.index(name)  # an unknown name is an error that suggests the nearest
        return [alphas.get(name, 0.0) for name in self.model.names]

    def _check(self) -> None:
        for index, modality in enumerate(self.model.modalities):
            if modality.input_only and self.alphas_target_KE[:, index].any():
                raise ValueError(f"{modality.name!r} is {modality.kind} and input only: remove it from `alpha_target`.")
            # the most runs that a sequence can have is every second token, and the target ends with one more sentinel
            needed = (modality.num_positions + 1) // 2 + 1
            if modality.kind == "sequence" and needed > len(self.special.sentinels):
                raise ValueError(
                    f"{modality.name!r} of {modality.num_positions} tokens can need {needed} sentinels, but the tokenizer has "
                    f"{len(self.special.sentinels)}. Lower its maximum length or train the tokenizer with more."
                )
        unknown = set(self.config.chunk_lengths) - {m.name for m in self.model.modalities if m.kind == "sequence"}
        if unknown:
            raise ValueError(f"`chunk_lengths` names {', '.join(sorted(unknown))}, which are no sequences of this model.")
        in_a_row = {m.name for m in self.model.modalities if m.kind in ("sequence", "vectors")}
        named = {name for component in self.config.components if isinstance(component.keep, dict) for name in component.keep}
        if named - in_a_row:
            raise ValueError(f"`keep` names {', '.join(sorted(named - in_a_row))}, which are no sequences of this model.")


def grid_masks(noise: np.ndarray, input_budget: np.ndarray, target_budget: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (is input, is target), bool (..., P), disjoint: place i is the argsort(noise)[i]-th to be taken."""
    rank = noise.argsort(-1)
    first, last = input_budget[..., None], (input_budget + target_budget)[..., None]
    return rank < first, (rank >= first) & (rank < last)
