"""`kedro serve`: real HTTP requests to the application, with the model in its process."""

import concurrent.futures
import http.client
import json
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
import requests
from echo_registry import TABLES, Served

from fourfold_ops.server.app import create_app
from fourfold_ops.server.batching import Batcher, Limits
from fourfold_ops.server.champion import Follower, RegistryAlias
from fourfold_ops.server.metrics import Metrics

POLL = 0.2


@pytest.fixture(scope="module")
def served(registry):
    metrics = Metrics()
    batcher = Batcher(Limits(max_body_bytes=100_000), metrics)
    alias = RegistryAlias(registry.client, "echo", "champion")
    follower = Follower(alias, batcher, metrics, {"MLFLOW_TRACKING_URI": registry.uri})
    server = Served(create_app(batcher, metrics, lambda: follower.run(alias.version(), POLL, lambda: None)))
    server.batcher = batcher
    early = server.post("/predict", {"inputs": {"caption": "abc"}})
    assert early.status_code == 503 and early.headers["Retry-After"] == "5" and "being loaded" in early.json()["error"]
    server.wait_for("/ready", 200)
    yield server
    server.stop()
    assert batcher.process._process.returncode == 0


def ask(served, caption="abc", **params):
    return served.post("/predict", {"inputs": {"caption": caption}, "params": params})


def test_one_sample_has_the_answer_in_process(served, registry):
    import mlflow

    answer = ask(served, "abcd", seed=7, targets=["size", "texts"])
    assert answer.status_code == 200 and answer.json() == {"outputs": {"size": 111, "texts": "abcd"}}
    model = mlflow.pyfunc.load_model("models:/echo/1")
    expected = model.predict({"caption": ["abcd"]}, params={"seed": 7, "targets": ["size", "texts"]})
    assert {name: [value] for name, value in answer.json()["outputs"].items()} == expected


@pytest.mark.parametrize("body", TABLES)
def test_invocations_follow_the_protocol_of_mlflow(served, body):
    answer = served.post("/invocations", body | {"params": {"seed": 5}})
    assert answer.status_code == 200 and answer.json() == {"predictions": {"size": [108, 107]}}


WRONG = [
    ("/predict", {"inputs": {"captoin": "a"}}, "Unknown input 'captoin'. Did you mean 'caption'?"),
    ("/predict", {"inputs": {"caption": "a", "rgbb": "a"}}, "Unknown input 'rgbb'."),
    ("/predict", {"inputs": {"caption": None}}, "Input 'caption' is null"),
    ("/predict", {"inputs": {"caption": ["a"]}}, "Input 'caption' must be text, got a list."),
    ("/predict", {"inputs": {"caption": "a"}, "params": {"sead": 1}}, "Unknown parameter 'sead'. Did you mean 'seed'?"),
    ("/predict", {"inputs": {"caption": "a"}, "params": [1]}, "`params` must be an object"),
    ("/predict", {"inputs": {"caption": "a"}, "params": {"targets": ["x"]}}, "Unknown target 'x'. Known: size, texts."),
    ("/predict", {"inputs": {"rgb": [[0.5]]}}, "Input 'rgb' has decimal numbers"),
    ("/predict", {"inputs": ["a"]}, "`inputs` must be an object"),
    ("/predict", {"input": {}}, "Unknown key 'input' of the body. Allowed: inputs, params."),
    ("/predict", {}, "The body must have exactly one of inputs."),
    ("/predict", ["a"], "The body must be a JSON object"),
    ("/invocations", {"inputs": {}, "instances": []}, "The body must have exactly one of dataframe_records, "),
    ("/invocations", {"instances": {"caption": "a"}}, "`instances` must be a list of objects"),
    ("/invocations", {"dataframe_split": {"columns": ["caption"], "data": [["a", "b"]]}}, "`dataframe_split` must have"),
    ("/invocations", {"dataframe_records": [{"captoin": "a"}]}, "Unknown input 'captoin'."),
]


@pytest.mark.parametrize(("path", "body", "sentence"), WRONG)
def test_wrong_requests_get_400_and_one_sentence(served, path, body, sentence):
    answer = served.post(path, body)
    assert answer.status_code == 400 and list(answer.json()) == ["error"]
    assert answer.json()["error"].startswith(sentence) and "\n" not in answer.json()["error"]


def test_other_faults_have_their_status_and_one_sentence(served):
    found = {
        "malformed": served.post("/predict", data=b"{", headers={"Content-Type": "application/json"}),
        "image": served.post("/predict", data=b"\x89PNG", headers={"Content-Type": "image/png"}),
        "large": served.post("/predict", {"inputs": {"caption": "a" * 200_000}}),
        "path": served.post("/predcit", {}),
        "method": requests.get(served.url + "/predict", timeout=60),
    }
    assert {name: answer.status_code for name, answer in found.items()} == {
        "malformed": 400,
        "image": 415,
        "large": 413,
        "path": 404,
        "method": 405,
    }
    assert all(list(answer.json()) == ["error"] for answer in found.values())
    assert "up to 0.1 MB are allowed" in found["large"].json()["error"]


def test_bodies_without_a_declared_length_are_limited_too(served):
    def parts():
        for _ in range(30):
            yield b"a" * 10_000

    assert served.post("/predict", data=parts(), headers={"Content-Type": "application/json"}).status_code == 413


def test_failure_of_the_model_shows_nothing_of_the_server(served):
    failed, other = (ask(served, caption) for caption in ("fail", "abc"))
    assert failed.status_code == 500 and failed.json() == {
        "error": "The model failed on this request. The log of the server has the details."
    }
    assert other.status_code == 200


def test_fifty_requests_at_once_have_their_own_answers_in_batches(served):
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda seed: ask(served, seed=seed, wait=0.05), range(50)))
    assert [answer.json() for answer in answers] == [{"outputs": {"size": 103 + seed}} for seed in range(50)]
    metrics = requests.get(served.url + "/metrics", timeout=60).text
    sizes = {
        line.split()[0]: float(line.split()[1]) for line in metrics.splitlines() if line.startswith("kedro_serve_batch_size_")
    }
    assert sizes["kedro_serve_batch_size_count"] < sizes["kedro_serve_batch_size_sum"] / 1.5  # many were answered together
    assert 'kedro_serve_model_info{name="echo",version="1"} 1.0' in metrics


def test_description_names_inputs_and_parameters(served):
    page = requests.get(served.url + "/openapi.json", timeout=60).json()
    schema = page["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert list(schema["properties"]["inputs"]["properties"]) == ["caption", "rgb"]
    assert schema["properties"]["params"]["properties"]["seed"] == {"default": 0}
    assert schema["example"] == {"inputs": {"caption": "abc"}}
    assert served.post("/predict", schema["example"]).status_code == 200
    model = requests.get(served.url + "/model", timeout=60).json()
    assert (model["name"], model["version"], model["outputs"]) == ("echo", "1", ["size"])


def test_client_that_leaves_harms_nobody(served):
    with socket.create_connection((urlsplit(served.url).hostname, urlsplit(served.url).port)) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    assert ask(served).status_code == 200


def move_to(number, served, registry):
    registry.champion(number)
    deadline = time.monotonic() + 120
    while served.batcher.process.number != str(number):
        assert time.monotonic() < deadline, f"version {number} is not served"
        time.sleep(0.05)


def test_new_champion_takes_over_without_a_failed_request(served, registry):
    answers, stop = [], threading.Event()

    def keep_asking():
        connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=60)
        while not stop.is_set():
            connection.request(
                "POST", "/predict", json.dumps({"inputs": {"caption": "abc"}}), {"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            answers.append((response.status, json.loads(response.read()).get("outputs", {}).get("size")))
            time.sleep(0.01)

    threads = [threading.Thread(target=keep_asking) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        move_to(2, served, registry)
        time.sleep(0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        move_to(1, served, registry)  # the other tests of this server know version 1
    assert set(answers) == {(200, 103), (200, 203)}
