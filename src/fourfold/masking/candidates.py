"""Candidate tokens of samples, and the flat lists of those that masking selects."""

# B samples, C candidates of a sample, S sequences, R = B · S rows, L positions in the longest sequence

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fourfold.model.batch import PADDING_MODALITY


@dataclass(frozen=True)
class Candidates:
    """Tokens of some modalities that may be selected; all arrays are (B, C), `used` bool, the others int64.

    Attributes:
        used: whether the token is selected.
        modality: index of its modality.
        position: its position in the grid, or its rank among the selected tokens of its sequence.
        token: id of an input, or the id before a target.
        target: id to predict; not used for inputs.
    """

    used: np.ndarray
    modality: np.ndarray
    position: np.ndarray
    token: np.ndarray
    target: np.ndarray


def no_candidates(num_samples: int) -> Candidates:
    """Return zero candidates for each sample."""
    empty = np.zeros((num_samples, 0), np.int64)
    return Candidates(empty.astype(bool), empty, empty, empty, empty)


def sequence_candidates(used_RL: np.ndarray, token_RL: np.ndarray, target_RL: np.ndarray, indices: np.ndarray) -> Candidates:
    """Turn rows of sequences into columns of samples.

    Args:
        used_RL, token_RL, target_RL: fields of `Candidates`; row s · B + b holds sequence s of sample b.
        indices: index of the modality of each sequence (S,).
    """
    num_sequences, num_samples = len(indices), len(used_RL) // len(indices)
    columns = num_sequences * used_RL.shape[1]

    def by_sample(rows_RL: np.ndarray) -> np.ndarray:
        return rows_RL.reshape(num_sequences, num_samples, rows_RL.shape[1]).swapaxes(0, 1).reshape(num_samples, columns)

    modality = np.broadcast_to(np.repeat(indices, used_RL.shape[1]), (num_samples, columns))
    # as in 4M, the position of a sequence token is its rank among the selected tokens, not its position in the text
    position_RL = np.maximum(used_RL.cumsum(1) - 1, 0)
    return Candidates(by_sample(used_RL), modality, by_sample(position_RL), by_sample(token_RL), by_sample(target_RL))


def select(candidates: list[Candidates], budget: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (modality, position, token, target), int64 (B, budget), of the selected candidates in order.

    Empty slots at the end have modality `PADDING_MODALITY` and zeros.
    """
    used = np.concatenate([group.used for group in candidates], 1)
    sample, column = np.nonzero(used)
    counts_B = used.sum(1)
    slot = np.arange(len(sample)) - np.repeat(counts_B.cumsum() - counts_B, counts_B)

    def chosen(name: str, empty: int) -> Tensor:
        values = np.concatenate([getattr(group, name) for group in candidates], 1)
        slots = np.full((len(used), budget), empty, np.int64)
        slots[sample, slot] = values[sample, column]
        return torch.from_numpy(slots)

    return chosen("modality", PADDING_MODALITY), chosen("position", 0), chosen("token", 0), chosen("target", 0)
