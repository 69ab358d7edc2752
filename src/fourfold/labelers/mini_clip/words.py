"""Captions as word numbers, for the mini-CLIP: small, closed and reproducible."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

WORD = re.compile(r"[^\W_]+", re.UNICODE)
PADDING, UNKNOWN = 0, 1


class Words:
    """The most frequent words of some captions, numbered; any other word is `UNKNOWN`."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._numbers = {word: number for number, word in enumerate(self.words, UNKNOWN + 1)}

    @classmethod
    def count(cls, captions: Iterable[str], limit: int) -> "Words":
        """Number the `limit` most frequent words, the more frequent first, equals in order of the alphabet."""
        counts = Counter(word for caption in captions for word in WORD.findall(caption.lower()))
        return cls([word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]])

    def __len__(self) -> int:
        return len(self.words) + 2

    def numbers(self, captions: Sequence[str], length: int) -> Tensor:
        """Return int64 (B, length): words past `length` are dropped, short captions are padded."""
        numbers_BL = torch.full((len(captions), length), PADDING)
        for row, caption in enumerate(captions):
            found = [self._numbers.get(word, UNKNOWN) for word in WORD.findall(caption.lower())[:length]]
            numbers_BL[row, : len(found)] = torch.tensor(found, dtype=torch.long)
        return numbers_BL
