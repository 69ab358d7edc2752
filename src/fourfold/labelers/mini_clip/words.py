"""The word vocabulary of the mini-CLIP: WordLevel of the `tokenizers` library, without subwords."""

from collections.abc import Iterable, Sequence

import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from tokenizers.trainers import WordLevelTrainer
from torch import Tensor

WORD = r"[\p{L}\p{N}]+"  # runs of letters and digits
PADDING_ID, UNKNOWN_ID = 0, 1
PADDING_TOKEN, UNKNOWN_TOKEN = "[PAD]", "[UNK]"  # contain brackets, so that no word of a caption is equal to them


class WordVocabulary:
    """The most frequent words of some captions with their ids; all other words are `UNKNOWN_ID`."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        # Without added tokens: a literal "[UNK]" in a caption is not special
        self._tokenizer = _tokenizer(
            {token: number for number, token in enumerate((PADDING_TOKEN, UNKNOWN_TOKEN, *self.words))}
        )

    @classmethod
    def train(cls, captions: Iterable[str], max_words: int) -> "WordVocabulary":
        """Take the `max_words` most frequent words, in order of frequency and then of the alphabet."""
        tokenizer = _tokenizer({UNKNOWN_TOKEN: 0})
        special = [PADDING_TOKEN, UNKNOWN_TOKEN]
        trainer = WordLevelTrainer(vocab_size=max_words + len(special), special_tokens=special, show_progress=False)
        tokenizer.train_from_iterator(captions, trainer)
        ids = tokenizer.get_vocab()
        return cls(sorted(ids.keys() - set(special), key=lambda word: ids[word]))

    def __len__(self) -> int:
        return len(self.words) + 2

    def encode(self, captions: Sequence[str], length: int) -> Tensor:
        """Return int64 (B, length): words after the first `length` are dropped, shorter captions are padded."""
        ids_BL = torch.full((len(captions), length), PADDING_ID)
        for row, caption in enumerate(captions):
            ids = self._tokenizer.encode(caption, add_special_tokens=False).ids[:length]
            ids_BL[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        return ids_BL


def _tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN_TOKEN))
    tokenizer.normalizer = normalizers.Lowercase()
    # What matches is kept, and the text between the matches is removed
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)
    return tokenizer
