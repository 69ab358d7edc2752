"""The words of the text tokenizer, learned from captions; the same list on every machine and in every run."""

import string
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import Field, field_validator, model_validator
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from fourfold.configuration import Config
from fourfold.scenes.world import OBJECT_CLASSES

PAD, UNK, SOS, EOS = "[PAD]", "[UNK]", "[SOS]", "[EOS]"
CONTINUATION = "##"
CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation  # so that plain text never has an unknown word


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
    """WordPiece for captions, and words for boxes: one vocabulary (4M §A.2)."""

    vocabulary_size: int = Field(1024, ge=64, le=32767, description="at most; a small corpus may fill less; 4M: 30,000")
    num_sentinels: int = Field(32, ge=2, le=1000, description="4M: 200; captions of n tokens can have n / 2 + 2 masked runs")
    coordinate_bins: int = Field(64, ge=2, le=4096, description="per box side; 4M: 1,000")
    object_classes: tuple[str, ...] = Field(OBJECT_CLASSES, min_length=1, description="names, or `coco`: its 80 classes")
    caption_tokens: int = Field(48, ge=1, le=1024, description="longest caption, without EOS")
    det_tokens: int = Field(30, ge=5, le=1024, description="longest box sequence, 5 tokens a box, without EOS")
    max_captions: int = Field(100_000, ge=1, description="captions that the vocabulary is learned from")
    extra_texts: tuple[str, ...] = Field(
        (
            "what colour is the shape of the object? which material or texture does it have, plain or striped?",
            "how many objects are there? how many cubes, spheres, cylinders and cones? is there a cube on the left?",
            "is the sphere bigger than, smaller than, in front of, behind, left of or right of the cone? yes, no, none.",
            "zero one two three four five six seven eight nine ten 0 1 2 3 4 5 6 7 8 9",
        ),
        description="texts beside the captions, so that words of later tasks (questions) are whole words",
    )

    @field_validator("object_classes", mode="before")
    @classmethod
    def _classes_by_name(cls, value: Any) -> Any:
        return COCO_CLASSES if value == "coco" else value

    @model_validator(mode="after")
    def _enough_sentinels(self) -> "TextTokenizerConfig":
        longest = max(self.caption_tokens, self.det_tokens)
        if self.num_sentinels < longest // 2 + 2:
            raise ValueError(
                f"num_sentinels is {self.num_sentinels}; sequences of {longest} tokens need at least {longest // 2 + 2}."
            )
        if len(set(self.object_classes)) != len(self.object_classes):
            raise ValueError(f"object_classes has a name twice: {', '.join(self.object_classes)}.")
        return self


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
