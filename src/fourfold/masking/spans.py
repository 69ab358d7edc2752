"""Span masking of sequences as T5 does it (4M-7 §2.2; Raffel et al., 2020), for many sequences at once.

    the sequence     a  large red  sphere EOS         masked: "large red" and "EOS"
    the input        a  [S_1]      sphere [S_2]
    the target       [S_1] large red [S_2] EOS [S_3]

A run of masked tokens becomes one sentinel; the target lists each sentinel with its run and ends with the next sentinel.
"""

# R sequences, L places in the longest (EOS included), C chunks of K places, T tries, J places in the longest target

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

PAD = 0
KEEP_FALLS_BY = 0.9  # after a try whose input was too long
TRIES_AT_ONCE = 8


@dataclass(frozen=True)
class SentinelIds:
    """The ids of a text tokenizer that masking writes. `sentinels` starts with the first one used ([S_1] in 4M)."""

    eos: int
    sentinels: tuple[int, ...]


@dataclass(frozen=True)
class Sequences:
    """R texts with EOS, padded. `chunk_RL` numbers the chunks that are masked as a whole (one token each by default)."""

    ids_RL: np.ndarray  # int64, PAD behind the end
    length_R: np.ndarray
    chunk_RL: np.ndarray

    @property
    def valid_RL(self) -> np.ndarray:
        """True where there is a token."""
        return np.arange(self.ids_RL.shape[1]) < self.length_R[:, None]


def with_eos(ids_RL: np.ndarray, eos: int, max_length_R: np.ndarray, chunk_length_R: np.ndarray) -> Sequences:
    """Append EOS to padded ids, then cut to the maximum length (so a long text loses its EOS), at a whole chunk."""
    num_rows, width = ids_RL.shape
    text_R = (ids_RL != PAD).sum(1)
    ids = np.zeros((num_rows, width + 1), np.int64)
    ids[:, :width] = ids_RL
    ids[np.arange(num_rows), text_R] = eos
    whole_R = np.where(text_R < max_length_R, text_R + 1, max_length_R // chunk_length_R * chunk_length_R)
    length_R = np.minimum(text_R + 1, whole_R)
    width = int(length_R.max(initial=1))
    place_L = np.arange(width)
    ids = np.where(place_L < length_R[:, None], ids[:, :width], PAD)
    return Sequences(ids, length_R, place_L // chunk_length_R[:, None])


def input_lengths(masked: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return how long the input is under a mask (…, L): tokens kept plus one sentinel a run."""
    return (valid & ~masked).sum(-1) + starts_of_runs(masked).sum(-1)


def shuffle_chunks(ids_RL: np.ndarray, chunk_length: int, rng: np.random.Generator) -> np.ndarray:
    """Return padded ids with their whole chunks in a drawn order; an unfinished last chunk stays where it is."""
    num_rows, width = ids_RL.shape
    num_chunks = -(-width // chunk_length)
    chunks_RCK = np.pad(ids_RL, ((0, 0), (0, num_chunks * chunk_length - width))).reshape(num_rows, num_chunks, chunk_length)
    whole_R = (ids_RL != PAD).sum(1) // chunk_length
    place_C = np.arange(num_chunks)
    noise_RC = np.where(place_C < whole_R[:, None], rng.random((num_rows, num_chunks)), 1 + place_C)
    order_RC1 = noise_RC.argsort(1)[..., None]
    return np.take_along_axis(chunks_RCK, order_RC1, 1).reshape(num_rows, -1)[:, :width]


def draw_masks(texts: Sequences, keep_R: np.ndarray, budget_R: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return bool (R, L), True where masked, such that each input fits its budget.

    Tokens are kept with probability `keep_R`; a row whose input is too long is drawn again with 0.9 of it, and so on. A budget
    of 0 masks everything. Several tries are drawn at once: the first that fits is what drawing one by one would give.
    """
    valid_RL = texts.valid_RL
    masked_RL = valid_RL.copy()
    rows, keep = np.flatnonzero(budget_R > 0), keep_R.astype(np.float64)
    factors_T = KEEP_FALLS_BY ** np.arange(TRIES_AT_ONCE)
    while len(rows):
        noise = rng.random((len(rows), TRIES_AT_ONCE, texts.ids_RL.shape[1]), dtype=np.float32)
        chunks = np.broadcast_to(texts.chunk_RL[rows][:, None], noise.shape)
        tries = np.take_along_axis(noise, chunks, 2) >= (keep[rows][:, None] * factors_T)[..., None]
        tries &= valid_RL[rows][:, None]
        row, chosen = first_that_fits(tries, valid_RL[rows], budget_R[rows])
        masked_RL[rows[row]] = tries[row, chosen]
        keep[rows] *= KEEP_FALLS_BY**TRIES_AT_ONCE
        rows = np.delete(rows, row)
    return masked_RL


def first_that_fits(tries_RTL: np.ndarray, valid_RL: np.ndarray, budget_R: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows that have a try whose input fits, the number of the first such try of each)."""
    fits_RT = input_lengths(tries_RTL, valid_RL[:, None]) <= budget_R[:, None]
    rows = np.flatnonzero(fits_RT.any(1))
    return rows, fits_RT[rows].argmax(1)


def write_inputs(texts: Sequences, masked_RL: np.ndarray, special: SentinelIds) -> tuple[np.ndarray, np.ndarray]:
    """Return (ids, used), both (R, L), of the inputs: the tokens that are kept, and a sentinel where a masked run starts."""
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
    """Return (ids (R, J), length_R) of the targets.

    A target over its budget starts at a random one of its sentinels, `draw(number of runs)`, and is cut at the budget; if what
    is left from there is shorter than the budget, it starts at the earliest sentinel from which all the rest fits.
    """
    starts_RL = starts_of_runs(masked_RL)
    run_RL, runs_R = starts_RL.cumsum(1), starts_RL.sum(1)
    place_RL = masked_RL.cumsum(1) - 1 + run_RL  # of each masked token in the target: behind its own sentinel
    length_R = masked_RL.sum(1) + runs_R + 1
    ids_RJ = np.zeros((len(length_R), int(length_R.max(initial=1))), np.int64)
    row, column = np.nonzero(masked_RL)
    ids_RJ[row, place_RL[row, column]] = texts.ids_RL[row, column]
    sentinels = np.asarray(special.sentinels)
    row, column = np.nonzero(starts_RL)
    ids_RJ[row, place_RL[row, column] - 1] = sentinels[run_RL[row, column] - 1]
    ids_RJ[np.arange(len(length_R)), length_R - 1] = sentinels[runs_R]
    # where a target that is too long starts
    run_starts = np.where(starts_RL, place_RL - 1, ids_RJ.shape[1])
    drawn_R = np.take_along_axis(np.sort(run_starts, 1), draw(np.maximum(runs_R, 1))[:, None], 1)[:, 0]
    rest_fits = starts_RL & (length_R[:, None] - run_starts <= budget_R[:, None])
    earliest_R = np.where(rest_fits, run_starts, ids_RJ.shape[1]).min(1, initial=ids_RJ.shape[1])
    start_R = np.where(length_R > budget_R, np.where(length_R - drawn_R < budget_R, earliest_R, drawn_R), 0)
    place_J = np.minimum(np.arange(ids_RJ.shape[1]) + start_R[:, None], ids_RJ.shape[1] - 1)
    cut_R = np.maximum(np.minimum(length_R - start_R, budget_R), 0)
    return np.take_along_axis(ids_RJ, place_J, 1) * (np.arange(ids_RJ.shape[1]) < cut_R[:, None]), cut_R


def merge_spans(input_ids: list[int], target_ids: list[int], special: SentinelIds) -> list[int]:
    """Put the runs of a target back where their sentinels stand in the input; a sentinel without a run is dropped."""
    sentinels, runs = set(special.sentinels), dict[int, list[int]]()
    run: list[int] = []  # what comes before the first sentinel belongs nowhere
    for token in target_ids:
        if token in sentinels:
            run = runs.setdefault(token, [])
        else:
            run.append(token)
    return [token for seen in input_ids for token in (runs.get(seen, []) if seen in sentinels else [seen])]


def starts_of_runs(masked: np.ndarray) -> np.ndarray:
    """True at the first token of each masked run, along the last axis."""
    starts = masked.copy()
    starts[..., 1:] &= ~masked[..., :-1]
    return starts


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
