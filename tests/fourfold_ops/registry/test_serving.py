"""Tables of any inputs become conditions of a model (the registry's own way is tested in test_registered_model)."""

import numpy as np
import pandas as pd
import pytest

from fourfold_ops.registry.serving import AnyInput

INPUTS = {"rgb": "uint8", "caption": "str", "det": "json"}


class Conditions:
    def predict(self, conditions, **params):
        return conditions


@pytest.fixture
def model() -> AnyInput:
    return AnyInput(Conditions(), INPUTS)


def test_complete_columns_become_arrays_and_lists(model):
    found = model.predict({"rgb": [[[1, 2]], [[3, 4]]], "caption": ["a", "b"]})
    assert found["rgb"].dtype == np.uint8 and found["rgb"].tolist() == [[[1, 2]], [[3, 4]]]
    assert found["caption"] == ["a", "b"]


def test_rows_may_lack_different_inputs(model):
    image = np.zeros((2, 2, 3), np.uint8)
    table = pd.DataFrame(
        {"rgb": [image, None, None], "caption": [None, "a", float("nan")], "det": [None, None, {"instances": []}]}
    )
    found = model.predict(table)
    assert found["rgb"][1:] == [None, None] and np.array_equal(found["rgb"][0], image)
    assert found["caption"] == [None, "a", None]
    assert found["det"] == [None, None, {"instances": []}]


def test_empty_inputs_are_dropped_and_unknown_ones_refused(model):
    assert list(model.predict({"rgb": [None, None], "caption": ["a", "b"]})) == ["caption"]
    with pytest.raises(ValueError, match=r"Unknown inputs \['dpeth'\]"):
        model.predict({"dpeth": [1]})
