"""Masking of vectors: features in a row that are shown or not, and never asked for, e.g. T5 embeddings of a caption (4M-21)."""

# B samples, L vectors of a sample, K shown at most, W their width

import numpy as np

from fourfold.masking.spans import Sequences, draw_masks, kept_lengths


def select_vectors(
    vectors_BLW: np.ndarray, keep_B: np.ndarray, budget_B: np.ndarray, limit: int, most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return (the vectors that are shown float32 (B, K, W), first ones first, then zeros; how many of each sample).

    Rows of zeros are no vectors; of the others the first `limit` count. Each is kept with its sample's probability, by the rule
    of sequences, so that no more than the budget are; nothing stands for those that are not (the reference shows a vector of
    zeros for each run of them). K is `most`, or L if that is less.
    """
    there_BL = vectors_BLW.any(2)
    place_L = np.arange(there_BL.shape[1])
    front_BL = (~there_BL).argsort(1, kind="stable")  # rows of zeros last
    chunk_BL = np.broadcast_to(place_L, there_BL.shape)
    rows = Sequences(chunk_BL, np.minimum(there_BL.sum(1), limit), chunk_BL)
    kept_BL = rows.valid_RL & ~draw_masks(rows, keep_B, budget_B, rng, kept_lengths)
    kept_first_BL = (~kept_BL).argsort(1, kind="stable")
    chosen_BK = np.take_along_axis(front_BL, kept_first_BL, 1)[:, :most]
    count_B = kept_BL.sum(1)
    used_BK = np.arange(chosen_BK.shape[1]) < count_B[:, None]
    return np.take_along_axis(vectors_BLW, chosen_BK[..., None], 1).astype(np.float32) * used_BK[..., None], count_B
