"""From whole samples to `MaskedBatch`: budgets, then a mask for every modality, then one flat list for each side."""

# B samples, E modalities, G grids of one size, S sequences, P places in a grid, R = B · S, N and M budgets

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fourfold.masking.budgets import draw_budgets
from fourfold.masking.config import MaskingConfig
from fourfold.masking.spans import SpecialIds, draw_masks, with_eos, write_inputs, write_targets
from fourfold.model.batch import PADDING, MaskedBatch
from fourfold.model.config import ModelConfig


@dataclass(frozen=True)
class Candidates:
    """Tokens that may be selected, of some modalities: all (B, C) int64; `used` says which are."""

    used: np.ndarray
    modality: np.ndarray
    position: np.ndarray
    token: np.ndarray  # input id, or the id that comes before the target
    target: np.ndarray  # id to predict; unused for inputs


class Masker:
    """Masks batches of one model's modalities. Raises ValueError when settings and model do not fit."""

    def __init__(self, config: MaskingConfig, model: ModelConfig, special: SpecialIds) -> None:
        self.config, self.model, self.special = config, model, special
        self.alphas_in_KE = np.array([self._alphas(component.alpha_in) for component in config.components])
        self.alphas_target_KE = np.array([self._alphas(component.alpha_target) for component in config.components])
        weights_K = np.array([component.weight for component in config.components])
        self.weights_K = weights_K / weights_K.sum()
        self.is_sequence_E = np.array([modality.kind == "sequence" for modality in model.modalities])
        self._check()

    def __call__(self, tokens: dict[str, np.ndarray], pixels_BHWC: np.ndarray | None, rng: np.random.Generator) -> MaskedBatch:
        """Mask B samples. `tokens`: name → integers (B, L), sequences padded with 0 and without EOS; `pixels` uint8 or None.

        A modality that is not there is fully masked: its share of the budget stays empty. All randomness comes from `rng`.
        """
        num_samples = len(next(iter(tokens.values())))
        there_E = np.array([pixels_BHWC is not None if m.kind == "pixels" else m.name in tokens for m in self.model.modalities])
        component_B = rng.choice(len(self.weights_K), num_samples, p=self.weights_K)
        lengths_E = np.array([modality.num_positions for modality in self.model.modalities]) * there_E
        input_BE, target_BE = self._budgets(component_B, lengths_E, rng)
        sides = [
            *self._grids(tokens, there_E, input_BE, target_BE, rng),
            *self._sequences(tokens, there_E, component_B, input_BE, target_BE, rng),
        ]
        in_modality, in_position, in_token, _ = _select([side[0] for side in sides], self.config.input_tokens)
        targets = _select([side[1] for side in sides], self.config.target_tokens)
        pixels = None if pixels_BHWC is None else torch.from_numpy(np.ascontiguousarray(pixels_BHWC))
        return MaskedBatch(in_modality, in_position, in_token, *targets, pixels)

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
            if there_E[index] and modality.kind != "sequence":
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
        num_samples, width = len(input_BE), max(tokens[self.model.names[index]].shape[1] for index in indices)
        ids_RL = np.zeros((len(indices), num_samples, width), np.int64)
        for row, index in enumerate(indices):
            sequence = tokens[self.model.names[index]]
            ids_RL[row, :, : sequence.shape[1]] = sequence
        modalities = [self.model.modalities[index] for index in indices]
        chunk_lengths = [self.config.chunk_lengths.get(modality.name, 1) for modality in modalities]
        lengths_R = np.repeat([modality.num_positions for modality in modalities], num_samples)
        texts = with_eos(ids_RL.reshape(-1, width), self.special.eos, lengths_R, np.repeat(chunk_lengths, num_samples))
        input_R, target_R = input_BE[:, indices].T.ravel(), target_BE[:, indices].T.ravel()
        keep_R = np.tile(self._keep(component_B, rng), len(indices))
        masked_RL = draw_masks(texts, keep_R, input_R, rng)
        in_ids, in_used = write_inputs(texts, masked_RL, self.special)
        target_ids, length_R = write_targets(texts, masked_RL, target_R, self.special, rng.integers)
        predicted = np.arange(target_ids.shape[1] - 1) < length_R[:, None] - 1  # n tokens in a row are n − 1 predictions
        as_input = _sequence_candidates(in_used & (input_R > 0)[:, None], in_ids, in_ids, indices)
        as_target = _sequence_candidates(predicted, target_ids[:, :-1], target_ids[:, 1:], indices)
        return [(as_input, as_target)]

    def _keep(self, component_B: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw with what probability the sequence tokens of a sample are kept."""
        uniform_B = rng.random(len(component_B))
        by_scheme = {"random": uniform_B, "all": np.ones_like(uniform_B), "binary": (uniform_B < 0.5).astype(float)}
        choices_KB = np.stack([by_scheme[component.keep] for component in self.config.components])
        return choices_KB[component_B, np.arange(len(component_B))]

    def _alphas(self, alphas: dict[str, float]) -> list[float]:
        for name in alphas:
            self.model.index(name)  # an unknown name is an error that suggests the nearest
        return [alphas.get(name, 0.0) for name in self.model.names]

    def _check(self) -> None:
        for index, modality in enumerate(self.model.modalities):
            if modality.kind == "pixels" and self.alphas_target_KE[:, index].any():
                raise ValueError(f"{modality.name!r} is pixels and input only: remove it from `alpha_target`.")
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


def grid_masks(noise: np.ndarray, input_budget: np.ndarray, target_budget: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (is input, is target), bool (..., P), disjoint: place i is the argsort(noise)[i]-th to be taken."""
    rank = noise.argsort(-1)
    first, last = input_budget[..., None], (input_budget + target_budget)[..., None]
    return rank < first, (rank >= first) & (rank < last)


def _sequence_candidates(used_RL: np.ndarray, token_RL: np.ndarray, target_RL: np.ndarray, indices: np.ndarray) -> Candidates:
    """Turn rows of sequences into columns of samples; a place is the rank among the selected tokens of the modality."""
    num_sequences, num_samples = len(indices), len(used_RL) // len(indices)
    columns = num_sequences * used_RL.shape[1]

    def by_sample(rows_RL: np.ndarray) -> np.ndarray:
        return rows_RL.reshape(num_sequences, num_samples, rows_RL.shape[1]).swapaxes(0, 1).reshape(num_samples, columns)

    modality = np.broadcast_to(np.repeat(indices, used_RL.shape[1]), (num_samples, columns))
    position_RL = np.maximum(used_RL.cumsum(1) - 1, 0)
    return Candidates(by_sample(used_RL), modality, by_sample(position_RL), by_sample(token_RL), by_sample(target_RL))


def _select(sides: list[Candidates], budget: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (modality, position, token, target), int64 (B, budget), of the candidates that are used, in order."""
    used = np.concatenate([side.used for side in sides], 1)
    sample, column = np.nonzero(used)
    counts_B = used.sum(1)
    slot = np.arange(len(sample)) - np.repeat(counts_B.cumsum() - counts_B, counts_B)

    def chosen(name: str, empty: int) -> Tensor:
        values = np.concatenate([getattr(side, name) for side in sides], 1)
        slots = np.full((len(used), budget), empty, np.int64)
        slots[sample, slot] = values[sample, column]
        return torch.from_numpy(slots)

    return chosen("modality", PADDING), chosen("position", 0), chosen("token", 0), chosen("target", 0)
