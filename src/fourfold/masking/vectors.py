"""Masking of vectors: features in a row that are shown or not, and never asked for, e.g. T5 embeddings of a caption (4M-21)."""

# B samples, L vectors of a sample, K shown at most, W their width

import numpy as np

from fourfold.masking.spans import Sequences, draw_masks, starts_of_runs


def select_vectors(
    vectors_BLW: np.ndarray, keep_B: np.ndarray, budget_B: np.ndarray, limit: int, most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return (the vectors that are shown float32 (B, K, W), first ones first, then zeros; how many of each sample).

    Rows of zeros are no vectors; of the others the first `limit` count. Each is kept with its sample's probability, by the rule
    of sequences: a vector of zeros stands for each run of those that are not, as in the reference, and counts in the budget.
    K is `most`, or L if that is less.
    """
    there_BL = vectors_BLW.any(2)
    place_L = np.arange(there_BL.shape[1])
    front_BL = (~there_BL).argsort(1, kind="stable")  # rows of zeros last
    chunk_BL = np.broadcast_to(place_L, there_BL.shape)
    rows = Sequences(chunk_BL, np.minimum(there_BL.sum(1), limit), chunk_BL)
    masked_BL = draw_masks(rows, keep_B, budget_B, rng)
    kept_BL = rows.valid_RL & ~masked_BL
    used_BL = (kept_BL | starts_of_runs(masked_BL)) & (budget_B > 0)[:, None]
    first_BK = (~used_BL).argsort(1, kind="stable")[:, :most]
    vectors_BKW = np.take_along_axis(vectors_BLW, np.take_along_axis(front_BL, first_BK, 1)[..., None], 1)
    shown_BK = np.take_along_axis(kept_BL & used_BL, first_BK, 1)
    return vectors_BKW.astype(np.float32) * shown_BK[..., None], used_BL.sum(1)
