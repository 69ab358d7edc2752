"""Tokens that may be selected, and the flat lists of those that are."""

# B samples, C candidates of a sample, S sequences, R = B · S, L places in the longest

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fourfold.model.batch import PADDING_MODALITY


@dataclass(frozen=True)
class Candidates:
    """Tokens that may be selected, of some modalities: all (B, C) int64; `used` says which are."""

    used: np.ndarray
    modality: np.ndarray
    position: np.ndarray
    token: np.ndarray  # input id, or the id that comes before the target
    target: np.ndarray  # id to predict; unused for inputs


def nothing(num_samples: int) -> Candidates:
    """Return no candidates for any sample."""
    empty = np.zeros((num_samples, 0), np.int64)
    return Candidates(empty.astype(bool), empty, empty, empty, empty)


def sequence_candidates(used_RL: np.ndarray, token_RL: np.ndarray, target_RL: np.ndarray, indices: np.ndarray) -> Candidates:
    """Turn rows of sequences into columns of samples; a place is the rank among the selected tokens of the modality."""
    num_sequences, num_samples = len(indices), len(used_RL) // len(indices)
    columns = num_sequences * used_RL.shape[1]

    def by_sample(rows_RL: np.ndarray) -> np.ndarray:
        return rows_RL.reshape(num_sequences, num_samples, rows_RL.shape[1]).swapaxes(0, 1).reshape(num_samples, columns)

    modality = np.broadcast_to(np.repeat(indices, used_RL.shape[1]), (num_samples, columns))
    position_RL = np.maximum(used_RL.cumsum(1) - 1, 0)
    return Candidates(by_sample(used_RL), modality, by_sample(position_RL), by_sample(token_RL), by_sample(target_RL))


def select(sides: list[Candidates], budget: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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

    return chosen("modality", PADDING_MODALITY), chosen("position", 0), chosen("token", 0), chosen("target", 0)
