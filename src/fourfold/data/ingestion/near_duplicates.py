"""Near-duplicates of images, by a perceptual hash of 64 bits.

The hash is the one known as pHash (Zauner 2010, "Implementation and benchmarking of perceptual image hash functions"): signs of
low frequencies of the discrete cosine transform of the gray image. Copies that were compressed, resized or brightened differ in
a few bits, other images in about half of them; crops, overlays and mirror images are not found. Flat images have no hash: all
of them would look alike.
"""

# H height, W width, S side of the transformed image, M hashes

from array import array
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from PIL import Image
from scipy.fft import dctn

SIDE, LOW = 32, 8  # pixels of the transformed image; frequencies on each axis that are kept
BITS = LOW * LOW
MIN_DEVIATION = 10.0  # gray levels; flatter images have no hash
# Largest distance that is allowed, and the default. Measured on crops of photographs (test_near_duplicates.py): more than 95 %
# of the copies at JPEG quality 50, of half the size or 15 % brighter are within 6 bits; of pairs of other crops, 0.02 % are.
MAX_DISTANCE, DISTANCE = 10, 6


def perceptual_hash(rgb_HW3: np.ndarray) -> int | None:
    """Return the hash of an image uint8 (H, W, 3), 0 to 2⁶⁴ − 1; None if it is flat."""
    gray = Image.fromarray(rgb_HW3).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    gray_SS = np.asarray(gray, np.float64)
    if gray_SS.std() < MIN_DEVIATION:
        return None
    low = dctn(gray_SS, norm="ortho")[:LOW, :LOW].ravel()
    low[0] = 0.0  # the mean brightness says nothing about the content
    bits = low > np.median(low)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


class HashIndex:
    """Finds hashes within a distance: two that differ in at most d bits agree in one of d + 1 bands of the bits.

    It takes 12 bytes a hash and band while it is searched.
    """

    def __init__(self, max_distance: int) -> None:
        self._max_distance = max_distance
        edges = np.linspace(0, BITS, max_distance + 2).astype(int)
        self._bands = [(np.uint64(low), np.uint64((1 << int(high - low)) - 1)) for low, high in pairwise(edges)]
        self._added = array("Q")
        self._tables: list[tuple[np.ndarray, np.ndarray]] | None = None  # by band: its values in order, hashes in that order

    def add(self, hashes: Iterable[int]) -> None:
        """Add hashes; equal ones count once."""
        self._added.extend(hashes)
        self._tables = None

    def __len__(self) -> int:
        return len(self._sorted()[0][0])

    def has_near(self, wanted: int) -> bool:
        """Return whether an added hash differs from this one in at most `max_distance` bits."""
        hash_ = np.uint64(wanted)
        for (shift, mask), (values_M, hashes_M) in zip(self._bands, self._sorted(), strict=True):
            value = (hash_ >> shift & mask).astype(values_M.dtype)
            first, last = np.searchsorted(values_M, value, "left"), np.searchsorted(values_M, value, "right")
            if (np.bitwise_count(hashes_M[first:last] ^ hash_) <= self._max_distance).any():
                return True
        return False

    def _sorted(self) -> list[tuple[np.ndarray, np.ndarray]]:
        if self._tables is None:
            hashes_M = np.unique(np.frombuffer(self._added, np.uint64))
            self._added = array("Q", hashes_M.tobytes())
            self._tables = []
            for shift, mask in self._bands:
                values_M = hashes_M >> shift & mask
                order_M = np.argsort(values_M, kind="stable")
                kind = np.uint32 if int(mask) < 2**32 else np.uint64
                self._tables.append((values_M[order_M].astype(kind), hashes_M[order_M]))
        return self._tables
