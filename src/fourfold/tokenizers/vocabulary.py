"""The words of the text tokenizer, learned from captions; the same list on every machine and in every run."""

import string
from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from fourfold.tokenizers.config import TextTokenizerConfig

PAD, UNK, SOS, EOS = "[PAD]", "[UNK]", "[SOS]", "[EOS]"
CONTINUATION = "##"
CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation  # so that plain text never has an unknown word


def fixed_entries(config: TextTokenizerConfig) -> list[str]:
    """Return what comes before all learned words: specials, sentinels, coordinates of the four sides, class names (4M §A.2)."""
    sentinels = [f"[S_{number}]" for number in range(config.num_sentinels)]
    coordinates = [f"v{side}={place}" for side in range(4) for place in range(config.coordinate_bins)]
    return [PAD, UNK, SOS, EOS, *sentinels, *coordinates, *config.object_classes]


def learn_vocabulary(texts: Iterable[str], config: TextTokenizerConfig) -> list[str]:
    """Return the whole vocabulary in order of id: fixed entries, single characters, then WordPiece's merges.

    Raises ValueError when `config.vocabulary_size` does not even hold the fixed entries and the characters.
    """
    fixed = fixed_entries(config)
    corpus = [*texts, *config.extra_texts]
    pieces = _characters(corpus)
    room = config.vocabulary_size - len(fixed)
    if room < len(pieces):
        raise ValueError(
            f"vocabulary_size is {config.vocabulary_size}, but {len(fixed)} fixed entries and {len(pieces)} characters need "
            f"{len(fixed) + len(pieces)}. Raise it, or lower coordinate_bins or num_sentinels."
        )
    # classes are words that captions teach as well: enough is merged to fill their second places
    merged = _merge(corpus, pieces, room + len(config.object_classes))
    return list(dict.fromkeys([*fixed, *merged]))[: config.vocabulary_size]


def wordpiece(vocabulary: list[str], names: Sequence[str] = ()) -> Tokenizer:
    """Return BERT's lower-case WordPiece tokenizer over `vocabulary`; no entry is special to it, so no text can inject one.

    `names`: entries, also of several words ("hot dog"), that are one token wherever a text has them as whole words, as in 4M:
    before a symbol that is no punctuation too ("tv¢"), where WordPiece alone would see one unknown word.
    """
    ids = {entry: number for number, entry in enumerate(vocabulary)}
    tokenizer = _tokenizer(models.WordPiece(vocab=ids, unk_token=UNK, max_input_chars_per_word=100))
    tokenizer.add_tokens([AddedToken(name, single_word=True, normalized=True) for name in names])
    return tokenizer


def _tokenizer(model: models.Model) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=CONTINUATION, cleanup=True)
    return tokenizer


def _characters(corpus: list[str]) -> list[str]:
    """Return each character alone and as a continuation, in a fixed order."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    seen = {character for text in corpus for character in normalizer.normalize_str(text) if not character.isspace()}
    alphabet = [*CHARACTERS, *sorted(seen - set(CHARACTERS))]
    return [*alphabet, *(CONTINUATION + character for character in alphabet)]


def _merge(corpus: list[str], pieces: list[str], size: int) -> list[str]:
    """Return `size` entries at most: `pieces` and what WordPiece's trainer merges of them.

    The trainer numbers characters in the order of a hash map that differs in every process, and breaks ties by number. Handed
    in as `special_tokens` they have fixed numbers.
    """
    tokenizer = _tokenizer(models.WordPiece(unk_token=UNK))
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=pieces, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__)
