"""Tables of any inputs become conditions of a model (the registry's own way is tested in test_registered_model)."""

import base64
import json

import numpy as np
import pandas as pd
import pytest
from mlflow.types import DataType, ParamSpec

from fourfold_ops.registry import serving
from fourfold_ops.registry.serving import AnyInput, InputError, check_params

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


def test_null_and_unknown_inputs_are_refused(model):
    with pytest.raises(InputError, match=r"Input 'rgb' is null or has no sample. Leave it out"):
        model.predict({"rgb": [None, None], "caption": ["a", "b"]})
    with pytest.raises(InputError, match=r"Unknown input 'captoin'\. Did you mean 'caption'\? Allowed: caption, det, rgb"):
        model.predict({"captoin": [1], "caption": ["a"]})


def test_files_stay_bytes_for_the_model(model):
    text = base64.b64encode(b"file").decode()
    assert model.predict({"rgb": [text]}) == {"rgb": [b"file"]}
    assert model.predict(pd.DataFrame([{"rgb": [text, text]}])) == {"rgb": [b"file", b"file"]}  # as MLflow packs texts


def test_error_has_one_sentence_for_servers_and_is_a_value_error():
    error = InputError("Wrong. Do this.")
    error.message = "Failed to predict data '...'"  # as MLflow's server sets it
    assert json.loads(error.serialize_as_json()) == {"error": "Wrong. Do this."}
    assert error.get_http_status_code() == 400 and isinstance(error, ValueError) and str(error) == "Wrong. Do this."


class Batched:
    def prepare(self, conditions, size=1):
        if size > 3:
            raise ValueError("size must be 3 or less.")
        return len(conditions), size

    def answer(self, requests):
        return [(*request, len(requests)) for request in requests]


def test_models_that_prepare_answer_several_requests_at_once():
    model = AnyInput(Batched(), INPUTS)
    prepared = [model.prepare({"caption": ["a"]}, {"size": 2}), model.prepare({"caption": ["a"], "det": [{}]}, {"size": None})]
    assert model.answer(prepared) == [(1, 2, 2), (2, 1, 2)]
    assert model.predict({"caption": ["a"]}) == (1, 1, 1)
    with pytest.raises(InputError, match="size must be 3"):
        model.prepare({"caption": ["a"]}, {"size": 4})


SPECS = {
    spec.name: spec
    for spec in (
        ParamSpec("targets", DataType.string, ["depth"], (-1,)),
        ParamSpec("seed", DataType.long, 0),
        ParamSpec("guidance", DataType.double, None),
    )
}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"sed": 1}, "Unknown parameter 'sed'. Did you mean 'seed'\\? Allowed: guidance, seed, targets."),
        ({"seed": 1.5}, "Parameter 'seed' must be a whole number, got 1.5."),
        ({"seed": True}, "'seed' must be a whole number, got True"),
        ({"guidance": "2"}, "'guidance' must be a number, got '2'"),
        ({"targets": "depth"}, "'targets' must be a list, each element text, got 'depth'"),
        ({"targets": ["depth", 3]}, "'targets' must be text, got 3"),
        ({"targets": [None]}, "'targets' must be text, got None"),
        ([1], "`params` must be an object"),
    ],
)
def test_wrong_parameters_are_refused(params, message):
    with pytest.raises(InputError, match=message):
        check_params(params, SPECS)


def test_right_parameters_pass():
    check_params({"targets": np.array(["a"]), "seed": np.int64(1), "guidance": 2}, SPECS)
    check_params({"guidance": None, "seed": None}, SPECS)


def test_version_of_older_code_names_what_to_do(tmp_path, monkeypatch):
    """Newer code, which this process has imported, may refuse the folder."""
    (tmp_path / "refusing_model.py").write_text(
        "class Model:\n    @classmethod\n    def load(cls, folder):\n        raise ValueError(f'{folder} has no digest.')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=r"old has no digest\. .* has not imported refusing_model, .* with `kedro run`\.$"):
        serving._load_pyfunc("old", {"loader": "refusing_model.Model", "inputs": {}})
