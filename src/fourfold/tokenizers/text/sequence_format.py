"""The interface between the stored values of one label and ids of the text vocabulary."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np

from fourfold.tokenizers.text.tokenizer import TextTokenizer

Value = Any  # of one sample, as the shards hold it
Number = tuple[int, int]  # (family, bin index): the token `v<family>=<bin index>`
Symbol = str | Number  # a word or a number


class SequenceFormat(ABC):
    """Writes a value as words and as numbers of the four families `v0=` to `v3=`, and reads it back.

    Args:
        text: the vocabulary.
        max_tokens: length at which the sequence is stored, without EOS.

    Raises:
        ValueError: the vocabulary has fewer bins for each family of numbers than `min_bins`.
    """

    min_bins = 1
    words: tuple[str, ...] = ()  # what the format writes besides numbers

    def __init__(self, text: TextTokenizer, max_tokens: int):
        num_bins = text.config.coordinate_bins
        if num_bins < self.min_bins:
            raise ValueError(
                f"{type(self).__name__} needs {self.min_bins} bins for its numbers; text.coordinate_bins is {num_bins}. "
                "Raise it."
            )
        self.text, self.max_tokens, self.num_bins = text, max_tokens, num_bins
        self._word_ids = {word: tuple(text.encode_caption(word)) for word in self.words}

    @abstractmethod
    def encode(self, value: Value, rng: np.random.Generator | None = None) -> list[int]:
        """Return the ids of a value, at full length and without EOS.

        Args:
            value: what the shards hold for one sample.
            rng: draws what the format leaves to chance, such as an order; None writes everything in a fixed order.

        Raises:
            ValueError: the value is impossible.
        """

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> Value:
        """Return the value of any ids up to EOS, as the shards hold it; skip what does not parse."""

    def fits(self, value: Value) -> bool:
        """Return whether a sequence of `max_tokens` holds the whole value."""
        return len(self.encode(value)) <= self.max_tokens

    def ids(self, symbols: Iterable[Symbol]) -> list[int]:
        """Return the ids of words and numbers; a word may have several."""
        ids: list[int] = []
        for symbol in symbols:
            ids += self._word_ids[symbol] if isinstance(symbol, str) else (self.text.number_id(*symbol),)
        return ids

    def symbols(self, ids: Iterable[int]) -> list[Symbol]:
        """Return this format's words and the numbers among ids up to EOS; skip all other ids."""
        tokens, symbols, start = self.text.until_end(ids), list[Symbol](), 0
        while start < len(tokens):
            word = next((w for w, of in self._word_ids.items() if tuple(tokens[start : start + len(of)]) == of), None)
            number = self.text.number(tokens[start])
            if word is not None:
                symbols.append(word)
            elif number is not None:
                symbols.append(number)
            start += len(self._word_ids[word]) if word is not None else 1
        return symbols

    def bin_index(self, value: float, low: float, high: float) -> int:
        """Return the bin of a value; `low` is the center of the first bin and `high` that of the last."""
        share = (min(max(float(value), low), high) - low) / (high - low)
        return round(share * (self.num_bins - 1))

    def bin_value(self, bin_index: int, low: float, high: float) -> float:
        """Return the value at the center of a bin: the inverse of `bin_index`."""
        return low + bin_index / (self.num_bins - 1) * (high - low)
