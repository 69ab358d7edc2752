"""What a sequence format is: the border between stored values of one label and ids of the text vocabulary."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np

from fourfold.tokenizers.text.tokenizer import TextTokenizer

Value = Any  # of one sample, as the shards hold it
Number = tuple[int, int]  # family, place
Symbol = str | Number  # a word or a number


class SequenceFormat(ABC):
    """Writes words and numbers of the four families `v0=` to `v3=`; `max_tokens` is its longest, without EOS."""

    smallest_vocabulary = 1  # how many places each family of numbers must have
    words: tuple[str, ...] = ()  # what it writes beside numbers

    def __init__(self, text: TextTokenizer, max_tokens: int):
        places = text.config.coordinate_bins
        if places < self.smallest_vocabulary:
            raise ValueError(
                f"{type(self).__name__} needs {self.smallest_vocabulary} places for its numbers; coordinate_bins is {places}. "
                "Raise text.coordinate_bins."
            )
        self.text, self.max_tokens, self.num_places = text, max_tokens, places
        self._word_ids = {word: tuple(text.encode_caption(word)) for word in self.words}

    @abstractmethod
    def encode(self, value: Value, rng: np.random.Generator | None = None) -> list[int]:
        """Return the ids of a value, not cut and without EOS. Raises ValueError for a value that cannot be right."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> Value:
        """Return the value that any ids say, as the shards hold it; what makes no sense is skipped."""

    def ids(self, symbols: Iterable[Symbol]) -> list[int]:
        """Return the ids of words and numbers."""
        found: list[int] = []
        for symbol in symbols:
            found += self._word_ids[symbol] if isinstance(symbol, str) else (self.text.number_id(*symbol),)
        return found

    def symbols(self, ids: Iterable[int]) -> list[Symbol]:
        """Return the words of this format and the numbers among ids up to EOS, leaving out all else."""
        tokens, found, place = self.text.until_end(ids), list[Symbol](), 0
        while place < len(tokens):
            word = next((w for w, of in self._word_ids.items() if tuple(tokens[place : place + len(of)]) == of), None)
            number = self.text.number(tokens[place])
            if word is not None:
                found.append(word)
            elif number is not None:
                found.append(number)
            place += len(self._word_ids[word]) if word is not None else 1
        return found

    def place(self, value: float, low: float, high: float) -> int:
        """Return the place of a value among all places, the ends of [low, high] being the first and the last."""
        share = (min(max(float(value), low), high) - low) / (high - low)
        return round(share * (self.num_places - 1))

    def value(self, place: int, low: float, high: float) -> float:
        """Return the value that a place stands for."""
        return low + place / (self.num_places - 1) * (high - low)
