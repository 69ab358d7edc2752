import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fourfold.labelers.mini_clip.words import PADDING_ID, UNKNOWN_ID, WordVocabulary

CAPTIONS = st.lists(st.text("abC ,.-1[UNK]", max_size=30), min_size=1, max_size=8)


@given(CAPTIONS, st.integers(1, 6), st.integers(1, 8))
def test_word_ids_follow_frequency_and_then_the_alphabet(captions: list[str], max_words: int, length: int) -> None:
    words = [re.findall(r"[^\W_]+", caption.lower()) for caption in captions]
    counts = Counter(word for caption in words for word in caption)
    kept = sorted(counts, key=lambda word: (-counts[word], word))[:max_words]
    vocabulary = WordVocabulary.train(captions, max_words)
    assert list(vocabulary.words) == kept
    ids = {word: number for number, word in enumerate(kept, UNKNOWN_ID + 1)}
    expected = [[ids.get(word, UNKNOWN_ID) for word in caption[:length]] for caption in words]
    expected = [row + [PADDING_ID] * (length - len(row)) for row in expected]
    assert vocabulary.encode(captions, length).tolist() == expected
