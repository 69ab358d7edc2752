import pytest
from pydantic import BaseModel, ConfigDict, PositiveInt

from fourfold_ops.errors import UserError
from fourfold_ops.hooks.parameters import check_parameters


class Tuning(BaseModel):
    model_config = ConfigDict(extra="forbid")
    steps: PositiveInt | dict[str, PositiveInt] = 90
    side: int | None = None


class Parameters(BaseModel):
    tuning: Tuning


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"steps": "abc"}, "tuning.steps = 'abc'"),
        ({"steps": {"vqa": 0}}, "tuning.steps.vqa = 0"),
        ({"side": "x"}, "tuning.side = 'x'"),
    ],
)
def test_place_of_a_wrong_value_has_no_python_types(values, place):
    with pytest.raises(UserError) as caught:
        check_parameters({"tuning": values}, Parameters)
    assert place in str(caught.value)
    assert not any(mark in str(caught.value) for mark in ("constrained", "[", "|", ".int ", ".dict"))


def test_unknown_key_lists_those_allowed():
    with pytest.raises(UserError, match=r"tuning.stepz is an unknown key. Did you mean 'steps'\? Allowed: side, steps"):
        check_parameters({"tuning": {"stepz": 1}}, Parameters)
