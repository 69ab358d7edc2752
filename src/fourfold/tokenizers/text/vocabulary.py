"""The vocabulary of the text tokenizer: settings, and entries learned from captions (4M, arXiv 2312.06647 §A.2).

Equal captions and settings give the same list on every machine and in every run. The `tokenizers` library learns the
words; this module fixes what the library leaves open: the ids before the words, and the order of the characters.
"""

import string
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import Field, field_validator, model_validator
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from fourfold.configuration import Config

PAD, UNK, SOS, EOS = "[PAD]", "[UNK]", "[SOS]", "[EOS]"
CONTINUATION = "##"  # marks a piece that continues a word, as in BERT
# always present, so that plain text has no unknown word
CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation

# The 80 object classes of COCO (arXiv 1405.0312), in the order of their ids in 4M's text tokenizer: 4204 to 4283
COCO_CLASSES = (
    "airplane", "apple", "backpack", "banana", "baseball bat", "baseball glove", "bear", "bed", "bench", "bicycle", "bird",
    "boat", "book", "bottle", "bowl", "broccoli", "bus", "cake", "car", "carrot", "cat", "cell phone", "chair", "clock",
    "couch", "cow", "cup", "dining table", "dog", "donut", "elephant", "fire hydrant", "fork", "frisbee", "giraffe",
    "hair drier", "handbag", "horse", "hot dog", "keyboard", "kite", "knife", "laptop", "microwave", "motorcycle", "mouse",
    "orange", "oven", "parking meter", "person", "pizza", "potted plant", "refrigerator", "remote", "sandwich", "scissors",
    "sheep", "sink", "skateboard", "skis", "snowboard", "spoon", "sports ball", "stop sign", "suitcase", "surfboard",
    "teddy bear", "tennis racket", "tie", "toaster", "toilet", "toothbrush", "traffic light", "train", "truck", "tv",
    "umbrella", "vase", "wine glass", "zebra",
)  # fmt: skip


class TextTokenizerConfig(Config):
    """WordPiece for captions and fixed tokens for boxes, in one vocabulary (4M §A.2)."""

    vocabulary_size: int = Field(
        1024, ge=64, le=32767, description="maximum number of entries; few captions may give fewer; 4M: 30,000"
    )
    num_sentinels: int = Field(32, ge=2, le=1000, description="a caption of n tokens has up to n / 2 + 2 masked spans; 4M: 200")
    coordinate_bins: int = Field(64, ge=2, le=4096, description="for each of the four sides of a box; 4M: 1,000")
    object_classes: tuple[str, ...] | None = Field(
        None,
        description="names that boxes may have, each one token; `coco`: its 80 classes; None: the objects of the labels' class "
        "table",
    )
    caption_tokens: int = Field(48, ge=1, le=1024, description="longest caption, without EOS")
    det_tokens: int | None = Field(
        30, ge=5, le=1024, description="longest box sequence, 5 tokens for each box, without EOS; None: no boxes"
    )
    max_captions: int = Field(100_000, ge=1, description="captions that the vocabulary is learned from")
    extra_texts: tuple[str, ...] = Field(
        (),
        description="texts that the vocabulary is learned from besides captions, e.g. questions of later tasks, so that their "
        "words are whole words",
    )

    @field_validator("object_classes", mode="before")
    @classmethod
    def _classes_by_name(cls, value: Any) -> Any:
        return COCO_CLASSES if value == "coco" else value

    @model_validator(mode="after")
    def _check(self) -> "TextTokenizerConfig":
        longest = max(self.caption_tokens, self.det_tokens or 0)
        if self.num_sentinels < longest // 2 + 2:
            raise ValueError(
                f"num_sentinels is {self.num_sentinels}; sequences of {longest} tokens need at least {longest // 2 + 2}."
            )
        if len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"object_classes must be different names, got {', '.join(self.class_names)}.")
        return self

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names that boxes may have; none before they are set or taken from a class table."""
        return self.object_classes or ()


def fixed_entries(config: TextTokenizerConfig) -> list[str]:
    """Return the entries before all learned words: specials, sentinels, coordinates of four sides, class names."""
    sentinels = [f"[S_{number}]" for number in range(config.num_sentinels)]
    coordinates = [f"v{side}={coordinate}" for side in range(4) for coordinate in range(config.coordinate_bins)]
    return [PAD, UNK, SOS, EOS, *sentinels, *coordinates, *config.class_names]


def learn_vocabulary(texts: Iterable[str], config: TextTokenizerConfig) -> list[str]:
    """Return the whole vocabulary in order of id: fixed entries, single characters, then WordPiece's merges.

    Raises:
        ValueError: `config.vocabulary_size` is too small for the fixed entries and the characters.
    """
    fixed = fixed_entries(config)
    corpus = [*texts, *config.extra_texts]
    characters = _characters(corpus)
    num_learned = config.vocabulary_size - len(fixed)
    if num_learned < len(characters):
        raise ValueError(
            f"vocabulary_size is {config.vocabulary_size}, but {len(fixed)} fixed entries and {len(characters)} characters "
            f"need {len(fixed) + len(characters)}. Raise it, or lower coordinate_bins or num_sentinels."
        )
    # Captions contain the class names as well, so WordPiece learns them a second time. Learning as many words more as
    # there are classes fills the entries that these duplicates leave empty.
    words = _learn_words(corpus, characters, num_learned + len(config.class_names))
    return list(dict.fromkeys([*fixed, *words]))[: config.vocabulary_size]


def wordpiece(vocabulary: list[str], names: Sequence[str] = ()) -> Tokenizer:
    """Return BERT's lower-case WordPiece tokenizer over `vocabulary`.

    No entry is special to it, so no text can inject a special token.

    Args:
        vocabulary: entries in order of id.
        names: entries, possibly of several words ("hot dog"), that become one token wherever a text has them as whole
            words, as in 4M. This also holds before a symbol that is not punctuation ("tv¢"), where WordPiece alone
            would find one unknown word.
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
    """Return each character as a word and as a continuation, in a fixed order."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    used = {character for text in corpus for character in normalizer.normalize_str(text) if not character.isspace()}
    alphabet = [*CHARACTERS, *sorted(used - set(CHARACTERS))]
    return [*alphabet, *(CONTINUATION + character for character in alphabet)]


def _learn_words(corpus: list[str], characters: list[str], max_size: int) -> list[str]:
    """Return up to `max_size` entries: `characters`, then what WordPiece's trainer merges them into.

    The trainer numbers characters in the order of a hash map, which differs in every process, and breaks ties by
    number. Passing the characters as `special_tokens` fixes their numbers.
    """
    tokenizer = _tokenizer(models.WordPiece(unk_token=UNK))
    trainer = trainers.WordPieceTrainer(vocab_size=max_size, special_tokens=characters, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)
    ids = tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__)
