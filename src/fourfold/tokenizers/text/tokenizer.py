"""Captions and boxes as sequences of ids from one vocabulary (4M, arXiv 2312.06647 §A.2).

A box is `v0=xmin v1=ymin v2=xmax v3=ymax class`, each side with coordinate tokens of its own; boxes are sorted by their
distance from the top left corner. A class name is the same token in a caption. EOS is not stored: masking
appends it.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fourfold.storage import read_json, write_json
from fourfold.tokenizers.text.vocabulary import TextTokenizerConfig, fixed_entries, learn_vocabulary, wordpiece

TOKENS_PER_BOX = 5
SIDES = 4
Instance = dict[str, Any]  # {"box": [xmin, ymin, xmax, ymax] in 0-1, "class_name": str, "score": float}


class TextTokenizer:
    """WordPiece for captions and coordinate tokens for boxes, over one vocabulary."""

    pad_id, unknown_id, sos_id, eos_id = 0, 1, 2, 3

    def __init__(self, vocabulary: list[str], config: TextTokenizerConfig):
        fixed = fixed_entries(config)
        if vocabulary[: len(fixed)] != fixed:
            raise ValueError("The vocabulary does not begin with the fixed entries of its settings. Train it again.")
        self.vocabulary, self.config = vocabulary, config
        self.sentinel_ids = list(range(4, 4 + config.num_sentinels))
        self._first_coordinate = 4 + config.num_sentinels
        self._first_class = self._first_coordinate + SIDES * config.coordinate_bins
        self._wordpiece = wordpiece(vocabulary, config.object_classes)

    @classmethod
    def train(cls, captions: Iterable[str], config: TextTokenizerConfig) -> "TextTokenizer":
        """Learn the vocabulary from captions; equal captions and settings give equal ids."""
        return cls(learn_vocabulary(captions, config), config)

    @property
    def vocabulary_size(self) -> int:
        """Number of ids; at most `config.vocabulary_size`, less when the captions have fewer words."""
        return len(self.vocabulary)

    def encode_caption(self, text: str) -> list[int]:
        """Return the ids of a text, not cut and without EOS. Text can never become a special, sentinel or coordinate token."""
        return self._wordpiece.encode(text, add_special_tokens=False).ids

    def decode_caption(self, ids: Iterable[int]) -> str:
        """Return the text up to the first EOS; ids that are no words are left out. Lower case, spacing as in English."""
        words = [token for token in self.until_end(ids) if self._first_class <= token < self.vocabulary_size]
        return self._wordpiece.decode(words, skip_special_tokens=False)

    def encode_boxes(self, instances: Sequence[Instance], max_boxes: int | None = None) -> list[int]:
        """Return five ids for each box, the nearest to the corner first; as they came where two are equally near.

        Nearness is that before rounding, as in the reference. Of more than `max_boxes` those with the highest score stay.
        Raises ValueError for a class that is not in `config.object_classes`, or a box that is not four numbers.
        """
        if max_boxes is not None and len(instances) > max_boxes:
            instances = sorted(instances, key=lambda instance: -float(instance.get("score", 1)))[:max_boxes]
        rows = [(self._row(instance), _from_the_corner(instance)) for instance in instances]
        bins = self.config.coordinate_bins
        return [
            token
            for (*places, kind), _ in sorted(rows, key=lambda row: row[1])
            for token in (*(self._first_coordinate + side * bins + place for side, place in enumerate(places)), kind)
        ]

    def decode_boxes(self, ids: Iterable[int]) -> list[Instance]:
        """Return the instances of a sequence, score 1; what is not a whole, upright box is skipped, so any ids will do."""
        tokens = self.until_end(ids)
        instances, position = [], 0
        while position + TOKENS_PER_BOX <= len(tokens):
            instance = self._instance(tokens[position : position + TOKENS_PER_BOX])
            instances += [instance] if instance else []
            position += TOKENS_PER_BOX if instance else 1
        return instances

    def number_id(self, family: int, place: int) -> int:
        """Return the id of `v<family>=<place>`; raises ValueError when there is no such token."""
        bins = self.config.coordinate_bins
        if not 0 <= family < SIDES or not 0 <= place < bins:
            raise ValueError(
                f"There is no token v{family}={place}: v0 to v{SIDES - 1}, each with places 0 to {bins - 1}, exist."
            )
        return self._first_coordinate + family * bins + place

    def number(self, token: int) -> tuple[int, int] | None:
        """Return (family, place) of an id that is a number, None of any other."""
        within = token - self._first_coordinate
        return divmod(within, self.config.coordinate_bins) if self._first_coordinate <= token < self._first_class else None

    def until_end(self, ids: Iterable[int]) -> list[int]:
        """Return the ids before the first EOS."""
        tokens = [int(token) for token in ids]
        return tokens[: tokens.index(self.eos_id)] if self.eos_id in tokens else tokens

    def save(self, path: Path) -> None:
        """Write vocabulary and settings as JSON, whole or absent."""
        write_json(path, {"settings": self.config.model_dump(mode="json"), "vocabulary": self.vocabulary})

    @classmethod
    def load(cls, path: Path) -> "TextTokenizer":
        """Read what `save` wrote."""
        stored = read_json(path)
        return cls(stored["vocabulary"], TextTokenizerConfig(**stored["settings"]))

    def _row(self, instance: Instance) -> tuple[int, ...]:
        """Return the four places and the id of the class."""
        box, name = instance["box"], instance["class_name"]
        if name not in self.config.object_classes:
            raise ValueError(
                f"Class {name!r} has no token. Known: {', '.join(self.config.object_classes)}. Set object_classes."
            )
        if len(box) != SIDES or not all(abs(side) < float("inf") for side in box):
            raise ValueError(f"A box is xmin, ymin, xmax, ymax in 0-1, got {box!r}.")
        last = self.config.coordinate_bins - 1
        places = (round(min(max(float(side), 0.0), 1.0) * last) for side in box)
        return (*places, self._first_class + self.config.object_classes.index(name))

    def _instance(self, tokens: list[int]) -> Instance | None:
        bins, classes = self.config.coordinate_bins, self.config.object_classes
        places = [token - self._first_coordinate - side * bins for side, token in enumerate(tokens[:SIDES])]
        kind = tokens[SIDES] - self._first_class
        whole = all(0 <= place < bins for place in places) and 0 <= kind < len(classes)
        if not whole or places[0] > places[2] or places[1] > places[3]:
            return None
        return {"box": [place / (bins - 1) for place in places], "class_name": classes[kind], "score": 1.0}


def _from_the_corner(instance: Instance) -> float:
    """Return the squared distance of a box's top left corner, within the image, from that of the image."""
    xmin, ymin = (min(max(float(side), 0.0), 1.0) for side in instance["box"][:2])
    return xmin**2 + ymin**2
