"""Import and export of 4M's released text tokenizer: the JSON of the `tokenizers` library.

Ids: PAD 0, UNK 1, SOS 2, EOS 3; sentinels `[S_0]` to `[S_199]` 4 to 203; coordinates `v0=0` to `v3=999` 204 to 4203
(`xmin=`… in the first release); the 80 COCO classes 4204 to 4283; then words; 30,000 entries in all.

One difference: text cannot spell a special, sentinel or coordinate token. In the released tokenizer the caption "[PAD]"
*is* the padding token. Every other text has the same ids.
"""

from pathlib import Path
from typing import Any

from fourfold.model.released.files import naming
from fourfold.storage import read_json, write_json
from fourfold.tokenizers.text.tokenizer import SIDES, TextTokenizer
from fourfold.tokenizers.text.vocabulary import COCO_CLASSES, CONTINUATION, UNK, TextTokenizerConfig, fixed_entries

RELEASED_TEXT = TextTokenizerConfig(
    vocabulary_size=30_000,
    num_sentinels=200,
    coordinate_bins=1000,
    object_classes=COCO_CLASSES,
    caption_tokens=256,
    det_tokens=256,
    extra_texts=(),
)
FIRST_RELEASE = ("xmin", "ymin", "xmax", "ymax")  # names of v0 to v3
MISSING = "missing"
PARTS: dict[str, dict[str, Any]] = {
    "normalizer": {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": True,
        "strip_accents": None,
        "lowercase": True,
    },
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "decoder": {"type": "WordPiece", "prefix": CONTINUATION, "cleanup": True},
}
MODEL = {"type": "WordPiece", "unk_token": UNK, "continuing_subword_prefix": CONTINUATION, "max_input_chars_per_word": 100}


def load_released_text(path: Path | str, caption_tokens: int = 256, det_tokens: int = 256) -> TextTokenizer:
    """Return the tokenizer of a released JSON file.

    Args:
        path: the file.
        caption_tokens: length at which captions will be stored.
        det_tokens: length at which box sequences will be stored.

    Raises:
        ValueError: the file is not a WordPiece tokenizer in 4M's layout.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} does not exist. Give the JSON file of a text tokenizer of 4M.")
    stored = read_json(path)
    entries, num_fixed = _entries(path, stored)
    num_sentinels = sum(entry.startswith("[S_") for entry in entries)
    num_bins = sum(entry.startswith("v0=") for entry in entries)
    first_class = 4 + num_sentinels + SIDES * num_bins
    with naming(path):
        config = TextTokenizerConfig(
            vocabulary_size=len(entries),
            num_sentinels=num_sentinels,
            coordinate_bins=num_bins,
            object_classes=tuple(entries[first_class:num_fixed]),
            caption_tokens=caption_tokens,
            det_tokens=det_tokens,
            extra_texts=(),
        )
    classes = tuple(entries[first_class:num_fixed])
    if entries[:num_fixed] != fixed_entries(config) or (
        classes and classes != COCO_CLASSES and classes == COCO_CLASSES[: len(classes)]
    ):
        raise ValueError(
            f"{path}: the first entries, {num_fixed} in added_tokens, are not specials, sentinels, coordinates and classes "
            "in 4M's order. Give a text tokenizer of 4M."
        )
    return TextTokenizer(entries, config)


def _entries(path: Path, stored: Any) -> tuple[list[str], int]:
    """Return the vocabulary in the order of ids, and the number of fixed entries, which are the added tokens."""
    stored = stored if isinstance(stored, dict) else {}
    for part, wanted in ({"model": MODEL} | PARTS).items():
        _require(path, part, wanted, stored.get(part))
    for part in ("truncation", "padding", "post_processor"):
        if stored.get(part) is not None:
            raise ValueError(f"{path}: its {part} is {stored[part]!r}; 4M's text tokenizers must have none. Give one of 4M.")
    ids, added = stored["model"].get("vocab"), stored.get("added_tokens")
    if not isinstance(ids, dict) or not all(type(number) is int for number in ids.values()):
        raise ValueError(f"{path}: model.vocab must map entries to ids. Give a text tokenizer of 4M.")
    entries = sorted(ids, key=ids.__getitem__)
    if sorted(ids.values()) != list(range(len(ids))):
        missing = min(set(range(len(ids))) - set(ids.values()))
        raise ValueError(f"{path}: ids must be 0 to {len(ids) - 1} without gaps, but {missing} is missing. Download it again.")
    if not isinstance(added, list):
        raise ValueError(f"{path}: it lacks added_tokens. Give a text tokenizer of 4M.")
    for number, token in enumerate(added):
        found = (token.get("id"), token.get("content")) if isinstance(token, dict) else token
        if number >= len(entries) or found != (number, entries[number]):
            right = (number, entries[number]) if number < len(entries) else "none"
            raise ValueError(f"{path}: added_tokens has {found!r} at {number}; its vocab implies {right!r}. Download it again.")
    return [_with_current_coordinate_name(entry) for entry in entries], len(added)


def export_released_text(tokenizer: TextTokenizer, path: Path | str) -> None:
    """Write a tokenizer as JSON of the `tokenizers` library, which the reference loads; atomically."""
    first_class = len(fixed_entries(tokenizer.config)) - len(tokenizer.config.class_names)
    added = [
        {
            "id": number,
            "content": entry,
            "single_word": number >= 4,  # the four specials may be part of a word
            "lstrip": False,
            "rstrip": False,
            "normalized": number >= first_class,
            "special": True,
        }
        for number, entry in enumerate(fixed_entries(tokenizer.config))
    ]
    vocab = {entry: number for number, entry in enumerate(tokenizer.vocabulary)}
    head = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "post_processor": None}
    write_json(Path(path), head | PARTS | {"model": MODEL | {"vocab": vocab}})


def _with_current_coordinate_name(entry: str) -> str:
    side, sign, bin_index = entry.partition("=")
    return f"v{FIRST_RELEASE.index(side)}={bin_index}" if sign and side in FIRST_RELEASE else entry


def _require(path: Path, part: str, wanted: dict[str, Any], found: Any) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"{path}: it lacks {part}. Give a text tokenizer of 4M.")
    for key, value in wanted.items():
        got = found.get(key, MISSING)
        if got != value:
            raise ValueError(f"{path}: {key} of its {part} is {got!r}; 4M's text tokenizers have {value!r}. Give one of 4M.")
