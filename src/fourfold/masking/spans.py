"""Span masking of sequences as in T5 (Raffel et al., 2020; 4M-7, arXiv 2312.06647 §2.2), for many sequences at once.

    sequence     a  large red  sphere EOS         masked: "large red" and "EOS"
    input        a  [S_1]      sphere [S_2]
    target       [S_1] large red [S_2] EOS [S_3]

Each run of masked tokens becomes one sentinel. The target lists each sentinel with its run and ends with the next
sentinel.
"""

# R sequences, L positions in the longest (with EOS), C chunks of K positions, T tries, J positions in the longest
# target vectors: B samples, L vectors of a sample, V of them visible at most, W their width

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

PADDING_ID = 0
KEEP_DECAY = 0.9  # of the keep probability, after a try whose input was too long
TRIES_AT_ONCE = 8  # drawing several tries at once is faster than one by one, and gives the same result


@dataclass(frozen=True)
class SentinelIds:
    """Ids of the text tokenizer that masking writes; `sentinels` starts with the first one in use ([S_1] in 4M)."""

    eos: int
    sentinels: tuple[int, ...]


@dataclass(frozen=True)
class Sequences:
    """R padded sequences with EOS.

    Attributes:
        ids_RL: int64, `PADDING_ID` after the end.
        length_R: number of tokens.
        chunk_RL: number of the chunk of each token; chunks are masked as a whole (one token each by default).
    """

    ids_RL: np.ndarray
    length_R: np.ndarray
    chunk_RL: np.ndarray

    @property
    def valid_RL(self) -> np.ndarray:
        """True where there is a token, bool (R, L)."""
        return np.arange(self.ids_RL.shape[1]) < self.length_R[:, None]


def with_eos(ids_RL: np.ndarray, eos: int, max_length_R: np.ndarray, chunk_length_R: np.ndarray) -> Sequences:
    """Append EOS to padded ids, then cut to the maximum length at the end of a chunk; a text that is cut has no EOS.

    Args:
        ids_RL: integers, padded with `PADDING_ID`.
        eos: id of EOS.
        max_length_R: maximum number of tokens, EOS included.
        chunk_length_R: tokens per chunk.
    """
    num_rows, width = ids_RL.shape
    text_R = (ids_RL != PADDING_ID).sum(1)
    ids = np.zeros((num_rows, width + 1), np.int64)
    ids[:, :width] = ids_RL
    ids[np.arange(num_rows), text_R] = eos
    whole_R = np.where(text_R < max_length_R, text_R + 1, max_length_R // chunk_length_R * chunk_length_R)
    length_R = np.minimum(text_R + 1, whole_R)
    width = int(length_R.max(initial=1))
    position_L = np.arange(width)
    ids = np.where(position_L < length_R[:, None], ids[:, :width], PADDING_ID)
    return Sequences(ids, length_R, position_L // chunk_length_R[:, None])


def input_lengths(masked: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the length of the input under masks (..., L): kept tokens plus one sentinel per masked run."""
    return (valid & ~masked).sum(-1) + starts_of_runs(masked).sum(-1)


def shuffle_chunks(ids_RL: np.ndarray, chunk_length: int, rng: np.random.Generator) -> np.ndarray:
    """Return padded ids (R, L) with their chunks in random order; an incomplete last chunk stays at the end."""
    num_rows, width = ids_RL.shape
    num_chunks = -(-width // chunk_length)
    chunks_RCK = np.pad(ids_RL, ((0, 0), (0, num_chunks * chunk_length - width))).reshape(num_rows, num_chunks, chunk_length)
    whole_R = (ids_RL != PADDING_ID).sum(1) // chunk_length
    chunk_C = np.arange(num_chunks)
    # chunks that are not whole sort last, in their order
    noise_RC = np.where(chunk_C < whole_R[:, None], rng.random((num_rows, num_chunks)), 1 + chunk_C)
    order_RC1 = noise_RC.argsort(1)[..., None]
    return np.take_along_axis(chunks_RCK, order_RC1, 1).reshape(num_rows, -1)[:, :width]


def draw_masks(texts: Sequences, keep_R: np.ndarray, budget_R: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw masks under which each input fits its budget.

    Tokens are kept with probability `keep_R`. If the input is too long, it is drawn again with 0.9 times the
    probability, and so on (4M's released code). A budget of 0 masks everything.

    Returns:
        bool (R, L), True where masked.
    """
    valid_RL = texts.valid_RL
    masked_RL = valid_RL.copy()
    rows, keep = np.flatnonzero(budget_R > 0), keep_R.astype(np.float64)
    decay_T = KEEP_DECAY ** np.arange(TRIES_AT_ONCE)
    while len(rows):
        noise = rng.random((len(rows), TRIES_AT_ONCE, texts.ids_RL.shape[1]), dtype=np.float32)
        chunks = np.broadcast_to(texts.chunk_RL[rows][:, None], noise.shape)
        tries = np.take_along_axis(noise, chunks, 2) >= (keep[rows][:, None] * decay_T)[..., None]
        tries &= valid_RL[rows][:, None]
        row, chosen = first_that_fits(tries, valid_RL[rows], budget_R[rows])
        masked_RL[rows[row]] = tries[row, chosen]
        keep[rows] *= KEEP_DECAY**TRIES_AT_ONCE
        rows = np.delete(rows, row)
    return masked_RL


def first_that_fits(tries_RTL: np.ndarray, valid_RL: np.ndarray, budget_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows for which some try fits the budget, and for each of them the index of the first such try.

    Args:
        tries_RTL: masks, True where masked.
        valid_RL: True where there is a token.
        budget_R: maximum length of the input.
    """
    fits_RT = input_lengths(tries_RTL, valid_RL[:, None]) <= budget_R[:, None]
    rows = np.flatnonzero(fits_RT.any(1))
    return rows, fits_RT[rows].argmax(1)


def write_inputs(texts: Sequences, masked_RL: np.ndarray, special: SentinelIds) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and use of the inputs, (R, L) each: kept tokens, and a sentinel where a masked run starts."""
    starts_RL = starts_of_runs(masked_RL)
    sentinels = np.asarray(special.sentinels)[np.maximum(starts_RL.cumsum(1) - 1, 0)]
    used_RL = starts_RL | (texts.valid_RL & ~masked_RL)
    return np.where(masked_RL, sentinels, texts.ids_RL) * used_RL, used_RL


def write_targets(
    texts: Sequences,
    masked_RL: np.ndarray,
    budget_R: np.ndarray,
    special: SentinelIds,
    draw: Callable[[np.ndarray], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Return ids (R, J) and lengths (R,) of the targets.

    A target over its budget starts at a random one of its sentinels and is cut at the budget. If the rest from there is
    shorter than the budget, the target starts at the earliest sentinel from which the whole rest fits.

    Args:
        texts: the sequences.
        masked_RL: True where masked.
        budget_R: maximum length of the target.
        special: ids of sentinels.
        draw: returns integers below its argument, (R,) → (R,); the generator's `integers`, or forced values in tests.
    """
    # 1) Masked tokens, each run after its sentinel, and the final sentinel
    starts_RL = starts_of_runs(masked_RL)
    run_RL, runs_R = starts_RL.cumsum(1), starts_RL.sum(1)
    position_RL = masked_RL.cumsum(1) - 1 + run_RL  # position of each masked token in the target
    length_R = masked_RL.sum(1) + runs_R + 1
    ids_RJ = np.zeros((len(length_R), int(length_R.max(initial=1))), np.int64)
    row, column = np.nonzero(masked_RL)
    ids_RJ[row, position_RL[row, column]] = texts.ids_RL[row, column]
    sentinels = np.asarray(special.sentinels)
    row, column = np.nonzero(starts_RL)
    ids_RJ[row, position_RL[row, column] - 1] = sentinels[run_RL[row, column] - 1]
    ids_RJ[np.arange(len(length_R)), length_R - 1] = sentinels[runs_R]
    # 2) The start of targets that are too long
    run_starts = np.where(starts_RL, position_RL - 1, ids_RJ.shape[1])
    drawn_R = np.take_along_axis(np.sort(run_starts, 1), draw(np.maximum(runs_R, 1))[:, None], 1)[:, 0]
    rest_fits = starts_RL & (length_R[:, None] - run_starts <= budget_R[:, None])
    earliest_R = np.where(rest_fits, run_starts, ids_RJ.shape[1]).min(1, initial=ids_RJ.shape[1])
    start_R = np.where(length_R > budget_R, np.where(length_R - drawn_R < budget_R, earliest_R, drawn_R), 0)
    # 3) Shift and cut
    position_RJ = np.minimum(np.arange(ids_RJ.shape[1]) + start_R[:, None], ids_RJ.shape[1] - 1)
    cut_R = np.maximum(np.minimum(length_R - start_R, budget_R), 0)
    return np.take_along_axis(ids_RJ, position_RJ, 1) * (np.arange(ids_RJ.shape[1]) < cut_R[:, None]), cut_R


def merge_spans(input_ids: list[int], target_ids: list[int], special: SentinelIds) -> list[int]:
    """Replace each sentinel of the input by its run in the target; a sentinel without a run is dropped."""
    sentinels, runs = set(special.sentinels), dict[int, list[int]]()
    run: list[int] = []  # collects tokens before the first sentinel, which are dropped
    for token in target_ids:
        if token in sentinels:
            run = runs.setdefault(token, [])
        else:
            run.append(token)
    return [token for seen in input_ids for token in (runs.get(seen, []) if seen in sentinels else [seen])]


def starts_of_runs(masked: np.ndarray) -> np.ndarray:
    """Return True at the first token of each masked run, along the last axis."""
    starts = masked.copy()
    starts[..., 1:] &= ~masked[..., :-1]
    return starts


def select_vectors(
    vectors_BLW: np.ndarray,
    keep_B: np.ndarray,
    budget_B: np.ndarray,
    limits: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Select vectors that the model sees, e.g. T5 embeddings of a caption (4M-21, arXiv 2406.09406); they are never targets.

    Each vector is kept or masked by the rule of sequences. As in 4M's released code, a vector of zeros replaces each
    masked run and counts in the budget.

    Args:
        vectors_BLW: vectors of each sample; rows of zeros are no vectors.
        keep_B: probability to keep a vector.
        budget_B: maximum number of selected vectors of each sample.
        limits: how many vectors of a sample to consider, and how many to return at most.
        rng: generator of the masks.

    Returns:
        Selected vectors in order, then zeros, float32 (B, V, W), and their number, int64 (B,).
    """
    max_considered, max_returned = limits
    there_BL = vectors_BLW.any(2)
    position_L = np.arange(there_BL.shape[1])
    front_BL = (~there_BL).argsort(1, kind="stable")  # rows of zeros last
    chunk_BL = np.broadcast_to(position_L, there_BL.shape)
    rows = Sequences(chunk_BL, np.minimum(there_BL.sum(1), max_considered), chunk_BL)
    masked_BL = draw_masks(rows, keep_B, budget_B, rng)
    kept_BL = rows.valid_RL & ~masked_BL
    used_BL = (kept_BL | starts_of_runs(masked_BL)) & (budget_B > 0)[:, None]
    first_BV = (~used_BL).argsort(1, kind="stable")[:, :max_returned]
    vectors_BVW = np.take_along_axis(vectors_BLW, np.take_along_axis(front_BL, first_BV, 1)[..., None], 1)
    visible_BV = np.take_along_axis(kept_BL & used_BL, first_BV, 1)
    return vectors_BVW.astype(np.float32) * visible_BV[..., None], used_BL.sum(1)
