"""The application that `mlflow models serve` runs, over a registered model: real HTTP requests."""

import concurrent.futures

import pytest
import requests
from echo_registry import TABLES, Served

from fourfold_ops.registry import values


@pytest.fixture(scope="module")
def model(registry):
    import mlflow

    return mlflow.pyfunc.load_model("models:/echo/1")


@pytest.fixture(scope="module")
def served(model):
    from mlflow.pyfunc import scoring_server

    server = Served(scoring_server.init(model))
    yield server
    server.stop()


def test_version_has_signature_example_and_pinned_requirements(model):
    signature = model.metadata.signature
    assert signature.inputs.input_names() == ["caption", "rgb"] and signature.outputs.input_names() == ["size"]
    assert {spec.name: spec.default for spec in signature.params} == {"targets": ["size"], "seed": 0, "wait": None}
    assert model.input_example == {"caption": ["abc"]}
    pinned = model.metadata.flavors["python_function"]["env"]
    assert pinned
    assert model.predict(model.input_example, params={"seed": 1}) == {"size": [104]}


@pytest.mark.parametrize("body", TABLES)
def test_all_forms_of_a_request_have_the_answer_in_process(served, model, body):
    answer = served.post("/invocations", body | {"params": {"seed": 5}})
    assert answer.status_code == 200
    assert answer.json()["predictions"] == model.predict({"caption": ["abc", "de"]}, params={"seed": 5}) == {"size": [108, 107]}


@pytest.mark.parametrize(
    ("inputs", "params", "sentence"),
    [
        ({"captoin": ["a"]}, {}, "Unknown input 'captoin'. Did you mean 'caption'? Allowed: caption, rgb."),
        ({"caption": ["a"], "rgbb": ["a"]}, {}, "Unknown input 'rgbb'. Did you mean 'rgb'? Allowed: caption, rgb."),
        ({"caption": ["a"]}, {"sead": 1}, "Unknown parameter 'sead'. Did you mean 'seed'? Allowed: seed, targets, wait."),
        ({"caption": ["a"]}, {"seed": "x"}, "Parameter 'seed' must be a whole number, got 'x'."),
        ({"caption": ["a"]}, {"targets": ["depth"]}, "Unknown target 'depth'. Known: size, texts."),
        (
            {"rgb": [[[0.5, 0.25]]]},
            {},
            "Input 'rgb' has decimal numbers from 0.25 to 0.5; uint8 allows whole numbers from 0 to ",
        ),
        ({"rgb": ["no file"]}, {}, "Input 'rgb' is a text that is not base64; it must be the base64 of a file"),
        ({"caption": [3]}, {}, "Input 'caption' must be text, got a number."),
        ({"caption": [None]}, {}, "Input 'caption' is null or has no sample. Leave it out, or give a value."),
    ],
)
def test_wrong_requests_get_400_and_one_sentence(served, inputs, params, sentence):
    answer = served.post("/invocations", {"inputs": inputs, "params": params})
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"] and answer.json()["error"].startswith(sentence)


def test_malformed_bodies_get_400_from_mlflow(served):
    for body in (b"{", b"[1]", b"{}"):
        answer = served.post("/invocations", data=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400 and "message" in answer.json()


def test_a_huge_list_is_refused(served, monkeypatch):
    monkeypatch.setattr(values, "MAX_NUMBERS", 1000)
    answer = served.post("/invocations", {"inputs": {"rgb": [[[[0] * 3] * 20] * 20]}})
    assert answer.status_code == 400 and "Send base64 of a PNG" in answer.json()["error"]


def test_fifty_requests_at_once_have_their_own_answers(served):
    def ask(seed: int) -> requests.Response:
        return served.post("/invocations", {"inputs": {"caption": ["abc"]}, "params": {"seed": seed}})

    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    assert [answer.json() for answer in answers] == [{"predictions": {"size": [103 + seed]}} for seed in range(50)]
