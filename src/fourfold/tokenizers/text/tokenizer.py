"""Captions and boxes as sequences of ids from one vocabulary (4M, arXiv 2312.06647 §A.2).

A box is `v0=xmin v1=ymin v2=xmax v3=ymax class`; each of the four sides has separate coordinate tokens. Boxes are
sorted by the distance of their top left corner from that of the image. A class name is the same token in a caption. EOS
is not stored: masking appends it.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fourfold.digests import damage_of, recorded_digests, write_recorded_json
from fourfold.storage import read_json
from fourfold.suggestions import unknown_name
from fourfold.tokenizers import REMEDY
from fourfold.tokenizers.text.vocabulary import TextTokenizerConfig, fixed_entries, learn_vocabulary, wordpiece

TOKENS_PER_BOX = 5
SIDES = 4  # xmin, ymin, xmax, ymax
NUM_SPECIALS = 4  # PAD, UNK, SOS, EOS come first
Instance = dict[str, Any]  # {"box": [xmin, ymin, xmax, ymax] in 0-1, "class_name": str, "score": float}


class TextTokenizer:
    """WordPiece for captions and coordinate tokens for boxes, over one vocabulary.

    Raises:
        ValueError: the vocabulary does not begin with the fixed entries of its settings.
    """

    pad_id, unknown_id, sos_id, eos_id = 0, 1, 2, 3

    def __init__(self, vocabulary: list[str], config: TextTokenizerConfig):
        fixed = fixed_entries(config)
        if vocabulary[: len(fixed)] != fixed:
            raise ValueError("The vocabulary does not begin with the fixed entries of its settings. Train it again.")
        self.vocabulary, self.config = vocabulary, config
        self.sentinel_ids = list(range(NUM_SPECIALS, NUM_SPECIALS + config.num_sentinels))
        self._first_coordinate = NUM_SPECIALS + config.num_sentinels
        self._first_class = self._first_coordinate + SIDES * config.coordinate_bins
        self._wordpiece = wordpiece(vocabulary, config.class_names)

    @classmethod
    def train(cls, captions: Iterable[str], config: TextTokenizerConfig) -> "TextTokenizer":
        """Learn the vocabulary from captions; equal captions and settings give equal ids."""
        return cls(learn_vocabulary(captions, config), config)

    @property
    def vocabulary_size(self) -> int:
        """Number of ids: at most `config.vocabulary_size`, fewer when the captions have fewer words."""
        return len(self.vocabulary)

    def encode_caption(self, text: str) -> list[int]:
        """Return the ids of a text, at full length and without EOS.

        Text never becomes a special, sentinel or coordinate token.
        """
        return self._wordpiece.encode(text, add_special_tokens=False).ids

    def decode_caption(self, ids: Iterable[int]) -> str:
        """Return the text up to the first EOS in lower case, with English spacing; skip ids that are not words."""
        words = [token for token in self.until_end(ids) if self._first_class <= token < self.vocabulary_size]
        return self._wordpiece.decode(words, skip_special_tokens=False)

    def encode_boxes(self, instances: Sequence[Instance], max_boxes: int | None = None) -> list[int]:
        """Return five ids for each box, sorted by the distance of the box's top left corner from that of the image.

        Distances are those before rounding, as in the reference implementation; equally distant boxes keep their order.
        If there are more than `max_boxes`, those with the highest scores are kept.

        Raises:
            ValueError: a class is not in `config.object_classes`, or a box is not four finite numbers.
        """
        if max_boxes is not None and len(instances) > max_boxes:
            instances = sorted(instances, key=lambda instance: -float(instance.get("score", 1)))[:max_boxes]
        rows = [(self._box_ids(instance), _corner_distance(instance)) for instance in instances]
        return [token for ids, _ in sorted(rows, key=lambda row: row[1]) for token in ids]

    def decode_boxes(self, ids: Iterable[int]) -> list[Instance]:
        """Return the instances of a sequence, with score 1.

        Any ids are allowed: what is not a complete, upright box (xmin ≤ xmax, ymin ≤ ymax) is skipped.
        """
        tokens = self.until_end(ids)
        instances, position = [], 0
        while position + TOKENS_PER_BOX <= len(tokens):
            instance = self._instance(tokens[position : position + TOKENS_PER_BOX])
            instances += [instance] if instance else []
            position += TOKENS_PER_BOX if instance else 1
        return instances

    def number_id(self, family: int, bin_index: int) -> int:
        """Return the id of the token `v<family>=<bin_index>`; raises ValueError when there is no such token."""
        bins = self.config.coordinate_bins
        if not 0 <= family < SIDES or not 0 <= bin_index < bins:
            raise ValueError(
                f"There is no token v{family}={bin_index}; allowed: v0 to v{SIDES - 1}, each with 0 to {bins - 1}. "
                "Raise text.coordinate_bins to have more."
            )
        return self._first_coordinate + family * bins + bin_index

    def number(self, token: int) -> tuple[int, int] | None:
        """Return (family, bin index) of an id that is a number, None of any other id."""
        offset = token - self._first_coordinate
        return divmod(offset, self.config.coordinate_bins) if self._first_coordinate <= token < self._first_class else None

    def until_end(self, ids: Iterable[int]) -> list[int]:
        """Return the ids before the first EOS."""
        tokens = [int(token) for token in ids]
        return tokens[: tokens.index(self.eos_id)] if self.eos_id in tokens else tokens

    def save(self, path: Path) -> None:
        """Write vocabulary and settings as JSON, atomically."""
        write_recorded_json(
            path.parent, path.name, {"settings": self.config.model_dump(mode="json"), "vocabulary": self.vocabulary}
        )

    @classmethod
    def load(cls, path: Path) -> "TextTokenizer":
        """Read a file that `save` wrote."""
        if damage := damage_of(path.parent, path.name, recorded_digests(path.parent)):
            raise ValueError(f"{damage} {REMEDY}")
        stored = read_json(path)
        return cls(stored["vocabulary"], TextTokenizerConfig(**stored["settings"]))

    def _box_ids(self, instance: Instance) -> list[int]:
        """Return the ids of the four sides and of the class."""
        box, name = instance["box"], instance["class_name"]
        if name not in self.config.class_names:
            remedy = "Add it to tokenizer_training.text.object_classes."
            raise ValueError(unknown_name("object class", name, self.config.class_names, remedy))
        if len(box) != SIDES or not all(abs(coordinate) < float("inf") for coordinate in box):
            raise ValueError(f"A box must be xmin, ymin, xmax, ymax from 0 to 1, got {box!r}.")
        last_bin = self.config.coordinate_bins - 1
        bins = [round(min(max(float(coordinate), 0.0), 1.0) * last_bin) for coordinate in box]
        sides = [self.number_id(side, bin_index) for side, bin_index in enumerate(bins)]
        return [*sides, self._first_class + self.config.class_names.index(name)]

    def _instance(self, tokens: list[int]) -> Instance | None:
        """Return the box that five ids stand for, None if they stand for none."""
        num_bins, classes = self.config.coordinate_bins, self.config.class_names
        bins = [token - self._first_coordinate - side * num_bins for side, token in enumerate(tokens[:SIDES])]
        class_index = tokens[SIDES] - self._first_class
        is_box = all(0 <= bin_index < num_bins for bin_index in bins) and 0 <= class_index < len(classes)
        if not is_box or bins[0] > bins[2] or bins[1] > bins[3]:
            return None
        box = [bin_index / (num_bins - 1) for bin_index in bins]
        return {"box": box, "class_name": classes[class_index], "score": 1.0}


def _corner_distance(instance: Instance) -> float:
    """Return the squared distance of a box's top left corner, clipped to the image, from that of the image."""
    xmin, ymin = (min(max(float(coordinate), 0.0), 1.0) for coordinate in instance["box"][:2])
    return xmin**2 + ymin**2
