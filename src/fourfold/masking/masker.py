"""From whole samples to a `MaskedBatch`: budgets, then a mask for every modality, then one flat list per side."""

# B samples, E modalities, K mixture components, G grids of one size, P positions in a grid, C = G · P
# S sequences, R = B · S rows, L positions; vectors (B, L, W), V of them visible at most; budgets of N inputs and M
# targets

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fourfold.data.missing import MISSING_TOKEN
from fourfold.masking.budgets import draw_budgets
from fourfold.masking.candidates import Candidates, no_candidates, select, sequence_candidates
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

KEEP_SCHEMES = ("random", "all", "binary")  # by the numbers that `Masker._keep` uses

Sides = tuple[Candidates, Candidates]  # of inputs, of targets


@dataclass(frozen=True)
class _Samples:
    """Samples to mask, and what was drawn for them so far."""

    tokens: dict[str, np.ndarray]
    present_E: np.ndarray  # bool: modalities that these samples have
    component_B: np.ndarray  # mixture component of each sample
    input_BE: np.ndarray  # budgets
    target_BE: np.ndarray
    rng: np.random.Generator

    def __len__(self) -> int:
        return len(self.component_B)


class Masker:
    """Masks batches of samples for one model.

    Args:
        config: budgets and mixture.
        model: the modalities of the model.
        special: ids of the text tokenizer that masking writes.
        only: modalities to use, for a data set that is used for some of its modalities; None: all.

    Raises:
        ValueError: if settings and model do not fit together.
    """

    def __init__(
        self, config: MaskingConfig, model: ModelConfig, special: SentinelIds, only: Collection[str] | None = None
    ) -> None:
        self.config, self.model, self.special = config, model, special
        for name in only or ():
            model.index(name)  # raises ValueError for an unknown name
        self.used_E = np.array([only is None or name in only for name in model.names])
        self.alphas_in_KE = np.array([self._alphas(component.alpha_in) for component in config.components])
        self.alphas_target_KE = np.array([self._alphas(component.alpha_target) for component in config.components])
        weights_K = np.array([component.weight for component in config.components])
        self.weights_K = weights_K / weights_K.sum()
        self.is_sequence_E = np.array([modality.kind == "sequence" for modality in model.modalities])
        self.vectors = next((index for index, m in enumerate(model.modalities) if m.kind == "vectors"), None)
        entries = {name: TOKEN_MODALITIES.get(base_name(name)) for name in model.names}
        self.chunk_lengths = {name: entry.chunk_length for name, entry in entries.items() if entry} | config.chunk_lengths
        self.shuffled = {name for name, entry in entries.items() if entry and entry.shuffled}
        self.may_be_missing = {name for name, entry in entries.items() if entry and entry.missing_if_empty}
        self._check()

    def __call__(self, tokens: dict[str, np.ndarray], pixels_BHWC: np.ndarray | None, rng: np.random.Generator) -> MaskedBatch:
        """Mask B samples. All randomness comes from `rng`.

        A modality that is missing is fully masked: its share of the budget stays empty. Where single samples lack one (an
        image without a caption, an empty row; a label that could not be made, a row of `MISSING_TOKEN`), the others of the
        sample share its budget instead: with 4M's rule, a component that prefers captions would leave such a sample hardly any
        input.

        Args:
            tokens: integers (B, L) by modality, sequences padded with 0 and without EOS; vectors are floats (B, L, W),
                with rows of zeros where there is no vector.
            pixels_BHWC: images, uint8; None if there are none.
            rng: generator of component, budgets and masks.

        Raises:
            ValueError: if tokens or pixels do not have the shape that the model expects.
        """
        # 1) Draw mixture components and budgets
        num_samples = len(next(iter(tokens.values())))
        pixel_name = None if pixels_BHWC is None else self.pixels_of(pixels_BHWC.shape[1:3])
        present_E = np.array([m.name == pixel_name if m.kind == "pixels" else m.name in tokens for m in self.model.modalities])
        present_E &= self.used_E
        component_B = rng.choice(len(self.weights_K), num_samples, p=self.weights_K)
        lengths_E = np.array([modality.num_positions for modality in self.model.modalities]) * present_E
        missing_BE = self._missing(tokens, present_E, num_samples)
        tokens = {name: _without_missing(ids) for name, ids in tokens.items()}
        samples = _Samples(tokens, present_E, component_B, *self._budgets(component_B, lengths_E, rng, missing_BE), rng)
        # 2) Mask each modality
        sides = [
            (no_candidates(num_samples), no_candidates(num_samples)),  # for a data set without any of the modalities
            *self._grids(samples),
            *self._sequences(samples),
        ]
        vectors = None
        if self.vectors is not None and present_E[self.vectors]:
            visible, vectors = self._vectors(samples, self.vectors)
            sides.append((visible, no_candidates(num_samples)))
        # 3) List the selected tokens of all modalities
        in_modality, in_position, in_token, _ = select([inputs for inputs, _ in sides], self.config.input_tokens)
        targets = select([targets for _, targets in sides], self.config.target_tokens)
        pixels = None if pixels_BHWC is None else torch.from_numpy(np.ascontiguousarray(pixels_BHWC))
        return MaskedBatch(in_modality, in_position, in_token, *targets, pixels, vectors)

    @property
    def pixels(self) -> str | None:
        """The pixel modality that a sample shows; among several resolutions, the one that has an alpha.

        Raises:
            ValueError: if several resolutions have an alpha, because a sample holds one image.
        """
        names = [m.name for m, used in zip(self.model.modalities, self.used_E, strict=True) if used and m.kind == "pixels"]
        with_alpha = [name for name in names if self.alphas_in_KE[:, self.model.index(name)].any()]
        if len(with_alpha) > 1:
            raise ValueError(
                f"A sample holds one image; `alpha_in` names {', '.join(with_alpha)}. Make a mixture: a data set for each."
            )
        return next(iter([*with_alpha, *names]), None)

    def pixels_of(self, size: tuple[int, ...]) -> str | None:
        """Return the pixel modality of images of (height, width); None if the model has no pixels.

        Raises:
            ValueError: if the model has several resolutions, but not this one.
        """
        sizes = self.model.pixel_sizes
        if len(sizes) <= 1:
            return next(iter(sizes), None)
        if (name := next((name for name, allowed in sizes.items() if allowed == size), None)) is None:
            raise ValueError(f"Images of {size[0]} × {size[1]} pixels do not fit; the model reads {sizes}. Resize them.")
        return name

    def _missing(self, tokens: dict[str, np.ndarray], present_E: np.ndarray, num_samples: int) -> np.ndarray:
        """Return which samples lack which modality of those that the data set has, bool (B, E)."""
        missing_BE = np.zeros((num_samples, len(present_E)), bool)
        for index, name in enumerate(self.model.names):
            if not present_E[index] or name not in tokens:  # pixels have no tokens
                continue
            if name in self.may_be_missing:
                missing_BE[:, index] = ~tokens[name].any(axis=1)
            elif np.issubdtype(tokens[name].dtype, np.integer):
                missing_BE[:, index] = tokens[name][:, 0] == MISSING_TOKEN
        return missing_BE

    def _budgets(
        self,
        component_B: np.ndarray,
        lengths_E: np.ndarray,
        rng: np.random.Generator,
        missing_BE: np.ndarray | bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw input and target budgets, int64 (B, E) each; those of modalities that a sample lacks are 0.

        A grid token is input or target, never both, so inputs lower the cap of targets; a sequence may be predicted
        completely.
        """
        config, num_samples = self.config, len(component_B)
        total_in = rng.integers(config.min_input_tokens or config.input_tokens, config.input_tokens + 1, num_samples)
        total_target = rng.integers(config.min_target_tokens or config.target_tokens, config.target_tokens + 1, num_samples)
        caps_BE = np.where(missing_BE, 0, np.broadcast_to(lengths_E, (num_samples, len(lengths_E))))
        input_BE = draw_budgets(_of_present(self.alphas_in_KE, component_B, missing_BE), total_in, caps_BE, rng)
        caps_BE = np.where(self.is_sequence_E, caps_BE, caps_BE - input_BE)
        return input_BE, draw_budgets(_of_present(self.alphas_target_KE, component_B, missing_BE), total_target, caps_BE, rng)

    def _grids(self, samples: _Samples) -> list[Sides]:
        """Select grid tokens and patches, all grids of one size at once."""
        by_size: dict[int, list[int]] = {}
        for index, modality in enumerate(self.model.modalities):
            if samples.present_E[index] and modality.kind in ("pixels", "grid"):
                by_size.setdefault(modality.num_positions, []).append(index)
        return [self._grids_of_size(samples, size, indices) for size, indices in by_size.items()]

    def _grids_of_size(self, samples: _Samples, size: int, indices: list[int]) -> Sides:
        """Select tokens of grids with `size` positions: one permutation each, first inputs, then targets."""
        empty = np.zeros((len(samples), size), np.int64)  # pixels have no tokens
        ids = [samples.tokens.get(self.model.names[index], empty) for index in indices]
        for index, grid in zip(indices, ids, strict=True):
            if grid.shape != (len(samples), size):
                raise ValueError(f"{self.model.names[index]!r} has shape {grid.shape}; expected {(len(samples), size)}.")
        ids_BC = np.concatenate(ids, 1).astype(np.int64)
        noise_BGP = samples.rng.random((len(samples), len(indices), size), dtype=np.float32)
        in_BGP, target_BGP = grid_masks(noise_BGP, samples.input_BE[:, indices], samples.target_BE[:, indices])
        modality_BC = np.broadcast_to(np.repeat(indices, size), ids_BC.shape)
        position_BC = np.broadcast_to(np.tile(np.arange(size), len(indices)), ids_BC.shape)
        inputs = Candidates(in_BGP.reshape(ids_BC.shape), modality_BC, position_BC, ids_BC, ids_BC)
        # targets of grids enter the decoder as the mask token, so no token comes before them
        targets = Candidates(target_BGP.reshape(ids_BC.shape), modality_BC, position_BC, np.zeros_like(ids_BC), ids_BC)
        return inputs, targets

    def _sequences(self, samples: _Samples) -> list[Sides]:
        """Mask spans of all sequences at once: row s · B + b holds sequence s of sample b."""
        indices = np.flatnonzero(samples.present_E & self.is_sequence_E)
        if not len(indices):
            return []
        # 1) One array of all sequences, padded to the longest, with EOS
        modalities = [self.model.modalities[index] for index in indices]
        chunk_lengths = [self.chunk_lengths.get(modality.name, 1) for modality in modalities]
        num_samples, width = len(samples), max(samples.tokens[modality.name].shape[1] for modality in modalities)
        ids_SBL = np.zeros((len(indices), num_samples, width), np.int64)
        for row, (modality, chunk_length) in enumerate(zip(modalities, chunk_lengths, strict=True)):
            sequence = samples.tokens[modality.name]
            if modality.name in self.shuffled:
                sequence = shuffle_chunks(sequence, chunk_length, samples.rng)
            ids_SBL[row, :, : sequence.shape[1]] = sequence
        lengths_R = np.repeat([modality.num_positions for modality in modalities], num_samples)
        texts = with_eos(ids_SBL.reshape(-1, width), self.special.eos, lengths_R, np.repeat(chunk_lengths, num_samples))
        # 2) Mask spans within the budgets
        input_R, target_R = samples.input_BE[:, indices].T.ravel(), samples.target_BE[:, indices].T.ravel()
        keep_R = self._keep([modality.name for modality in modalities], samples)
        masked_RL = draw_masks(texts, keep_R, input_R, samples.rng)
        # 3) Write inputs and targets
        in_ids, in_used = write_inputs(texts, masked_RL, self.special)
        target_ids, length_R = write_targets(texts, masked_RL, target_R, self.special, samples.rng.integers)
        predicted = np.arange(target_ids.shape[1] - 1) < length_R[:, None] - 1  # n tokens in a row give n − 1 predictions
        inputs = sequence_candidates(in_used & (input_R > 0)[:, None], in_ids, in_ids, indices)
        targets = sequence_candidates(predicted, target_ids[:, :-1], target_ids[:, 1:], indices)
        return [(inputs, targets)]

    def _vectors(self, samples: _Samples, index: int) -> tuple[Candidates, Tensor]:
        """Select vectors; return the candidates and the selected vectors alone, float32 (B, V, W), in the same order."""
        modality = self.model.modalities[index]
        vectors_BLW = samples.tokens[modality.name]
        if vectors_BLW.ndim != 3 or vectors_BLW.shape[2] != modality.vector_width:
            raise ValueError(f"{modality.name!r} has shape {vectors_BLW.shape}; expected (B, L, {modality.vector_width}).")
        limit, keep_B = modality.num_positions, self._keep([modality.name], samples)
        max_visible = min(limit, self.config.input_tokens)
        visible_BVW, count_B = select_vectors(
            vectors_BLW, keep_B, samples.input_BE[:, index], (limit, max_visible), samples.rng
        )
        rank_BV = np.broadcast_to(np.arange(visible_BVW.shape[1]), visible_BVW.shape[:2])
        modality_BV = np.full_like(rank_BV, index)
        return Candidates(rank_BV < count_B[:, None], modality_BV, rank_BV, rank_BV, rank_BV), torch.from_numpy(visible_BVW)

    def _keep(self, names: list[str], samples: _Samples) -> np.ndarray:
        """Draw the probability with which the tokens of each sequence are kept, float64 (S · B,)."""
        num_samples = len(samples)
        draws = len(names) if self.config.keep_drawn_per == "sequence" else 1
        uniform_SB = np.broadcast_to(samples.rng.random((draws, num_samples)), (len(names), num_samples))
        schemes = [[KEEP_SCHEMES.index(component.keep_of(name)) for component in self.config.components] for name in names]
        scheme_SB = np.array(schemes)[:, samples.component_B]
        return np.select([scheme_SB == 0, scheme_SB == 1], [uniform_SB, 1.0], uniform_SB < 0.5).ravel()

    def _alphas(self, alphas: dict[str, float]) -> list[float]:
        for name in alphas:
            self.model.index(name)  # raises ValueError for an unknown name, with a suggestion
        return [alphas.get(name, 0.0) for name in self.model.names]

    def _check(self) -> None:
        """Raise ValueError if settings and model do not fit together."""
        for index, modality in enumerate(self.model.modalities):
            if modality.input_only and self.alphas_target_KE[:, index].any():
                raise ValueError(f"{modality.name!r} is {modality.kind} and input only: remove it from `alpha_target`.")
            # at most every second token starts a masked run, and the target ends with one more sentinel
            needed = (modality.num_positions + 1) // 2 + 1
            if modality.kind == "sequence" and needed > len(self.special.sentinels):
                raise ValueError(
                    f"{modality.name!r} with {modality.num_positions} tokens can need {needed} sentinels; the tokenizer has "
                    f"{len(self.special.sentinels)}. Lower its maximum length or train the tokenizer with more sentinels."
                )
        sequences = {m.name for m in self.model.modalities if m.kind == "sequence"}
        vectors = {m.name for m in self.model.modalities if m.kind == "vectors"}
        keep = {name for component in self.config.components if isinstance(component.keep, dict) for name in component.keep}
        for setting, named, allowed in (
            ("chunk_lengths", set(self.config.chunk_lengths), sequences),
            ("keep", keep, sequences | vectors),
        ):
            if unknown := named - allowed:
                raise ValueError(
                    f"`{setting}` names {', '.join(sorted(unknown))}, which are no sequences of this model. "
                    f"Allowed: {', '.join(sorted(allowed)) or 'none'}."
                )


def _without_missing(ids_BL: np.ndarray) -> np.ndarray:
    """Return ids in which 0 stands for `MISSING_TOKEN`: no budget selects any of them."""
    if not np.issubdtype(ids_BL.dtype, np.integer) or ids_BL.min(initial=0) > MISSING_TOKEN:
        return ids_BL
    return np.where(ids_BL == MISSING_TOKEN, 0, ids_BL)


def _of_present(alphas_KE: np.ndarray, component_B: np.ndarray, missing_BE: np.ndarray | bool) -> np.ndarray:
    """Return the alphas (B, E) of the components of some samples, 0 for what a sample lacks.

    A sample that lacks all modalities of its component takes the mean of all components; if it lacks those too, nothing of it
    is selected.
    """
    alphas_BE = np.where(missing_BE, 0.0, alphas_KE[component_B])
    mean_BE = np.where(missing_BE, 0.0, alphas_KE.mean(axis=0))
    alphas_BE = np.where(alphas_BE.any(axis=1, keepdims=True), alphas_BE, mean_BE)
    return np.where(alphas_BE.any(axis=1, keepdims=True), alphas_BE, alphas_KE[component_B])


def grid_masks(noise: np.ndarray, input_budget: np.ndarray, target_budget: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return disjoint masks of inputs and targets, bool of the shape of `noise`.

    Args:
        noise: random numbers (..., P); position i is the argsort(noise)[i]-th to be selected.
        input_budget, target_budget: number of inputs and of targets (...).
    """
    # As in 4M's released code, the argsort itself serves as the rank of the positions: it is a uniform permutation as
    # well.
    rank = noise.argsort(-1)
    first, last = input_budget[..., None], (input_budget + target_budget)[..., None]
    return rank < first, (rank >= first) & (rank < last)
