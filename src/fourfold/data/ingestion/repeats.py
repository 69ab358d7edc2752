"""Near-duplicates within `train`: of images that look alike only the first one is kept.

An image is left out if its perceptual hash is near to that of an earlier image of `train` that is kept. So no two images that
are kept are near to each other, and each that is left out is near to one that is kept. What is kept depends on the order of the
source alone, not on processes or interruptions.
"""

# H hashes that are looked up, O other hashes, C candidates

import tempfile
from collections.abc import Iterable, Iterator
from itertools import combinations, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from fourfold.configuration import Config
from fourfold.data.ingestion.drops import NUM_EXAMPLES
from fourfold.data.ingestion.near_duplicates import BITS, DISTANCE, MAX_DISTANCE

REPEAT = "near-duplicate of another training image"
BLOCK, PART = 1 << 18, 1 << 13  # hashes that are compared with the kept ones on disk, and in memory, at once
READ, ROWS = 1 << 17, 512  # hashes read from disk at once; of a part that are compared with all of it at once
CANDIDATES = 1 << 21  # pairs of hashes that are compared at once
MIN_BANDS = 8  # of the bits of a hash; two of them form a key of 16 bits


class NearDuplicateConfig(Config):
    """How near-duplicates within `train` are found, and what becomes of all but the first."""

    max_distance: int = Field(DISTANCE, ge=0, le=MAX_DISTANCE)  # bits of 64 in which the hashes of near-duplicates differ
    remove: bool = True  # False: they are only counted and named


class Repeats:
    """Counts the images of `train` that repeat an earlier one.

    Args:
        config: what counts as a repetition.
        hashes: of all images of `train`, in order; None for flat images, which repeat nothing.
        scratch: a folder for a temporary file.
    """

    def __init__(self, config: NearDuplicateConfig, hashes: Iterable[int | None], scratch: Path) -> None:
        self._config = config
        self._repeats_H = find_repeats(hashes, config.max_distance, scratch)
        self._next, self._found = 0, 0
        self._examples: list[str] = []

    def removes(self, key: str) -> bool:
        """Count the next image if it is a repetition, and return whether it is to be removed."""
        byte, bit = divmod(self._next, 8)
        self._next += 1
        if not self._repeats_H[byte] >> (7 - bit) & 1:
            return False
        self._found += 1
        if len(self._examples) < NUM_EXAMPLES:
            self._examples.append(key)
        return self._config.remove

    def report(self) -> dict[str, Any]:
        """Return what was found, as JSON."""
        found = {"found": self._found, "removed": self._config.remove, "examples": self._examples}
        return found | {"max_distance": self._config.max_distance, "training_images": self._next}


def find_repeats(hashes: Iterable[int | None], max_distance: int, scratch: Path) -> np.ndarray:
    """Return a bit for each hash, uint8 (⌈H / 8⌉,): whether it is near to an earlier one whose bit is 0.

    Memory does not grow with the number of hashes, but for these bits: those that are kept are in a temporary file.

    Args:
        hashes: 0 to 2⁶⁴ − 1; None is near to nothing.
        max_distance: bits in which near hashes differ at most.
        scratch: the folder of the file; it must exist.
    """
    bits, rest = list[np.ndarray](), np.zeros(0, bool)
    remaining = iter(hashes)
    with tempfile.TemporaryFile(dir=scratch) as kept:
        while block := list(islice(remaining, BLOCK)):
            known_H = np.array([hash_ is not None for hash_ in block])
            repeats_H = np.zeros(len(block), bool)
            hashes_H = np.array([hash_ for hash_ in block if hash_ is not None], np.uint64)
            repeats_H[known_H] = near_H = _near_earlier(hashes_H, _stored(kept), max_distance)
            kept.seek(0, 2)
            kept.write(hashes_H[~near_H].tobytes())
            whole = np.concatenate([rest, repeats_H])
            end = len(whole) // 8 * 8
            bits.append(np.packbits(whole[:end]))
            rest = whole[end:]
    return np.concatenate([*bits, np.packbits(rest)])


def _stored(file: Any) -> Iterator[np.ndarray]:
    """Yield the hashes of a file, uint64 (O,) each."""
    file.seek(0)
    while content := file.read(8 * READ):
        yield np.frombuffer(content, np.uint64)


def _near_earlier(hashes_H: np.ndarray, kept: Iterable[np.ndarray], max_distance: int) -> np.ndarray:
    """Return whether each hash is near to a kept one, or to an earlier one of the block that is not: bool (H,)."""
    near_H = Lookup(hashes_H, max_distance).near_any(kept)
    new: list[np.ndarray] = []  # hashes of this block that are kept
    for start in range(0, len(hashes_H), PART):
        part_H, near_part_H = hashes_H[start : start + PART], near_H[start : start + PART]
        near_part_H |= Lookup(part_H, max_distance).near_any(new)
        left_H = np.flatnonzero(~near_part_H)
        near_part_H[left_H] = _near_earlier_of_part(part_H[left_H], max_distance)
        new = [np.concatenate([*new, part_H[~near_part_H]])]
    return near_H


def _near_earlier_of_part(hashes_H: np.ndarray, max_distance: int) -> np.ndarray:
    """Return as `_near_earlier` for few hashes, each compared with each."""
    near_H = np.zeros(len(hashes_H), bool)
    for start in range(0, len(hashes_H), ROWS):
        rows_R = hashes_H[start : start + ROWS, None]
        is_near_RH = np.bitwise_count(rows_R ^ hashes_H[: start + ROWS]) <= max_distance
        is_near_RH &= np.arange(is_near_RH.shape[1]) < np.arange(start, start + len(rows_R))[:, None]  # earlier ones
        for row in np.flatnonzero(is_near_RH.any(axis=1)):
            near_H[start + row] = (is_near_RH[row] & ~near_H[: is_near_RH.shape[1]]).any()
    return near_H


class Lookup:
    """Finds which of some hashes are near to others.

    The bits are in two more bands than `max_distance`, so two hashes that are near agree in two bands. For each two bands a
    table has the hashes in the order of these bits.
    """

    def __init__(self, hashes_H: np.ndarray, max_distance: int) -> None:
        self._hashes_H, self._max_distance = hashes_H, max_distance
        edges = np.linspace(0, BITS, max(MIN_BANDS, max_distance + 2) + 1).astype(int)
        self._keys = [_Key(*both) for both in combinations([(int(low), int(high)) for low, high in pairwise(edges)], 2)]
        self._tables = [self._table(key) for key in self._keys]

    def _table(self, key: "_Key") -> tuple[np.ndarray, np.ndarray]:
        """Return where each value of a key starts, and the indices of the hashes in the order of their values."""
        values_H = key.of(self._hashes_H)
        starts = np.zeros((1 << key.bits) + 1, np.int64)
        np.cumsum(np.bincount(values_H, minlength=1 << key.bits), out=starts[1:])
        return starts, np.argsort(values_H, kind="stable").astype(np.int32)

    def near_any(self, others: Iterable[np.ndarray]) -> np.ndarray:
        """Return whether each hash is near to any of the others, uint64 (O,) each: bool (H,)."""
        near_H = np.zeros(len(self._hashes_H), bool)
        for others_O in others:
            for key, (starts, order_H) in zip(self._keys, self._tables, strict=True):
                values_O = key.of(others_O)
                first_O, counts_O = starts[values_O], starts[values_O + 1] - starts[values_O]
                for part in _parts(np.cumsum(counts_O)):
                    row_C = np.repeat(np.arange(len(others_O))[part], counts_O[part])
                    nth_C = np.arange(len(row_C)) - np.repeat(np.cumsum(counts_O[part]) - counts_O[part], counts_O[part])
                    candidates_C = order_H[first_O[row_C] + nth_C]
                    distance_C = np.bitwise_count(self._hashes_H[candidates_C] ^ others_O[row_C])
                    near_H[candidates_C[distance_C <= self._max_distance]] = True
        return near_H


def _parts(ends_O: np.ndarray) -> Iterator[slice]:
    """Yield slices of hashes, whose candidates, counted up to each, are about `CANDIDATES` or those of one hash."""
    start, total = 0, int(ends_O[-1]) if len(ends_O) else 0
    while start < len(ends_O):
        before = int(ends_O[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends_O, before + CANDIDATES, "right")))
        yield slice(start, stop)
        start = stop if int(ends_O[stop - 1]) < total else len(ends_O)


class _Key:
    """A number of two bands of a hash."""

    def __init__(self, first: tuple[int, int], second: tuple[int, int]) -> None:
        (low, high), (low_2, high_2) = first, second
        self.bits = high - low + high_2 - low_2
        self._first = np.uint64(low), np.uint64((1 << high - low) - 1)
        self._second = np.uint64(low_2), np.uint64((1 << high_2 - low_2) - 1), np.uint64(high - low)

    def of(self, hashes_H: np.ndarray) -> np.ndarray:
        """Return the value of each hash, int64 (H,)."""
        low, mask = self._first
        low_2, mask_2, shift = self._second
        return ((hashes_H >> low & mask) | (hashes_H >> low_2 & mask_2) << shift).astype(np.int64)
