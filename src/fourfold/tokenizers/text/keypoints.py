"""People as boxes and joints, written as numbers."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fourfold.modalities.keypoints import JOINTS
from fourfold.suggestions import unknown_name
from fourfold.tokenizers.text.sequence_format import Number, SequenceFormat, Value
from fourfold.tokenizers.text.tokenizer import SIDES, TextTokenizer

BOX, JOINT = [0, 1, 2, 3], [2, 0, 1]  # families of the numbers of a box, and of a joint: its index, x, y
FORM = '{"box": [xmin, ymin, xmax, ymax], "points": {"nose": [x, y], ...}}, all from 0 to 1'
AXES, SHOWN = 2, 200  # of an image; characters of a wrong value
MAX_TOKENS_PER_PERSON = SIDES + len(JOINT) * len(JOINTS)


class KeypointsFormat(SequenceFormat):
    """For each person `v0=xmin v1=ymin v2=xmax v3=ymax`, then `v2=joint v0=x v1=y` for each visible joint.

    A value is `{"instances": [{"box": 0-1, "points": {"nose": [x, y], ...}}]}`, see `fourfold.modalities.keypoints`. The
    generator draws the order of the joints. If there are too many people, the first ones are written.
    """

    min_bins = len(JOINTS)

    def __init__(self, text: TextTokenizer, max_tokens: int):
        super().__init__(text, max_tokens)
        if max_tokens < MAX_TOKENS_PER_PERSON:
            raise ValueError(
                f"The sequence of keypoints has {max_tokens} tokens; a person needs {MAX_TOKENS_PER_PERSON}. Raise it."
            )

    def fits(self, value: Value) -> bool:
        """Return whether all people fit."""
        return sum(self._length(person) for person in value["instances"]) <= self.max_tokens

    def encode(self, value: Value, rng: np.random.Generator | None = None) -> list[int]:  # noqa: D102
        numbers: list[Number] = []
        for person in value["instances"]:
            _require_person(person)
            if len(numbers) + self._length(person) > self.max_tokens:
                break
            numbers += [(side, self.bin_index(edge, 0, 1)) for side, edge in enumerate(person["box"])]
            visible = [index for index, joint in enumerate(JOINTS) if joint in person["points"]]
            for index in visible if rng is None else [visible[place] for place in rng.permutation(len(visible))]:
                x, y = person["points"][JOINTS[index]]
                numbers += [(2, index), (0, self.bin_index(x, 0, 1)), (1, self.bin_index(y, 0, 1))]
        return self.ids(numbers)

    def decode(self, ids: Iterable[int]) -> Value:
        """Return every person whose box is complete, with the joints that are complete; of a repeated joint the first."""
        numbers = [symbol for symbol in self.symbols(ids) if not isinstance(symbol, str)]
        people: list[dict[str, list[float] | dict[str, list[float]]]] = []
        points: dict[str, list[float]] = {}
        place = 0
        while place < len(numbers):
            box, joint = numbers[place : place + len(BOX)], numbers[place : place + len(JOINT)]
            if _families(box) == BOX:
                points = {}
                people.append({"box": [self.bin_value(index, 0, 1) for _, index in box], "points": points})
                place += len(BOX)
            elif people and _families(joint) == JOINT and joint[0][1] < len(JOINTS):
                points.setdefault(JOINTS[joint[0][1]], [self.bin_value(index, 0, 1) for _, index in joint[1:]])
                place += len(JOINT)
            else:
                place += 1
        return {"instances": people}

    @staticmethod
    def _length(person: Value) -> int:
        return len(BOX) + len(JOINT) * len(person["points"])


def _require_person(person: Value) -> None:
    """Raise ValueError unless a value is a person with a box and joints that are known."""
    points, box = (person.get(field) if isinstance(person, Mapping) else None for field in ("points", "box"))
    lengths = [(box, SIDES), *((place, AXES) for place in points.values())] if isinstance(points, Mapping) else [(None, 0)]
    if any(not isinstance(numbers, Sequence) or len(numbers) != length for numbers, length in lengths):
        raise ValueError(f"{str(person)[:SHOWN]} is no person. Allowed: {FORM}.")
    if unknown := sorted(set(points or ()) - set(JOINTS)):
        raise ValueError(unknown_name("joint", unknown[0], JOINTS))


def _families(numbers: list[Number]) -> list[int]:
    return [family for family, _ in numbers]
