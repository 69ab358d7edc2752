"""People as boxes and joints, written as words and numbers."""

from collections.abc import Iterable

import numpy as np

from fourfold.modalities.keypoints import JOINTS
from fourfold.tokenizers.text.sequence_format import Number, SequenceFormat, Symbol, Value
from fourfold.tokenizers.text.tokenizer import SIDES

FAMILIES = [2, 0, 1]  # of the numbers of a joint: its index, x, y


class KeypointsFormat(SequenceFormat):
    """For each person `human v0=xmin v1=ymin v2=xmax v3=ymax`, then `v2=joint v0=x v1=y` for each visible joint.

    A value is `{"instances": [{"box": 0-1, "points": {"nose": [x, y], ...}}]}`, see `fourfold.modalities.keypoints`. The
    generator draws the order of the joints. `none` is written where there is no person. People who do not fit `max_tokens`
    as a whole are left out; the first ones are kept.
    """

    min_bins = len(JOINTS)
    words = ("human", "none")

    def encode(self, value: Value, rng: np.random.Generator | None = None) -> list[int]:  # noqa: D102
        ids: list[int] = []
        for person in value["instances"]:
            symbols: list[Symbol] = ["human", *((side, self.bin_index(edge, 0, 1)) for side, edge in enumerate(person["box"]))]
            visible = [index for index, joint in enumerate(JOINTS) if joint in person["points"]]
            for index in visible if rng is None else [visible[place] for place in rng.permutation(len(visible))]:
                x, y = person["points"][JOINTS[index]]
                symbols += [(2, index), (0, self.bin_index(x, 0, 1)), (1, self.bin_index(y, 0, 1))]
            new = self.ids(symbols)
            if len(ids) + len(new) > self.max_tokens:
                break
            ids += new
        return ids or self.ids(["none"])

    def decode(self, ids: Iterable[int]) -> Value:
        """Return every person whose box is complete, with the joints that are complete; of a repeated joint the first."""
        people: list[list[Number]] = []
        for symbol in self.symbols(ids):
            if symbol == "human":
                people.append([])
            elif people and not isinstance(symbol, str):
                people[-1].append(symbol)
        return {"instances": [self._person(numbers) for numbers in people if _families(numbers[:SIDES]) == list(range(SIDES))]}

    def _person(self, numbers: list[Number]) -> dict[str, object]:
        points: dict[str, list[float]] = {}
        start = SIDES
        while start < len(numbers):
            triple = numbers[start : start + len(FAMILIES)]
            if _families(triple) == FAMILIES and triple[0][1] < len(JOINTS):
                points.setdefault(JOINTS[triple[0][1]], [self.bin_value(index, 0, 1) for _, index in triple[1:]])
                start += len(FAMILIES)
            else:
                start += 1
        return {"box": [self.bin_value(index, 0, 1) for _, index in numbers[:SIDES]], "points": points}


def _families(numbers: list[Number]) -> list[int]:
    return [family for family, _ in numbers]
