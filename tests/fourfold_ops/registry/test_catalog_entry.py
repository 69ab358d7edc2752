"""The entry `registered_model` of the catalog: a version of it answers requests as the model does in process."""

import base64
import io
import json
import shutil
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourfold.generation import any_to_any
from fourfold.generation.any_to_any import AnyToAny
from fourfold.generation.requests import as_image
from fourfold.model.fourm import FourM
from fourfold_ops.cli.catalog import configuration
from fourfold_ops.registry.registered_model import RegisteredModelDataset
from fourfold_ops.registry.serving import InputError
from fourfold_ops.tracking.run import ActiveRun, set_active_run

sys.path.insert(0, str(Path(__file__).parents[2] / "fourfold/generation"))
from counting import CONFIG, CountingTokenizers

ROOT = Path(__file__).parents[3]


@cache
def entry(environment: str | None = None) -> dict:
    found = dict(configuration("catalog", environment, ROOT)["registered_model"])
    assert found.pop("type").endswith("RegisteredModelDataset")
    return found


@pytest.fixture(scope="module")
def model():
    return AnyToAny(FourM(CONFIG, seed=2), CountingTokenizers())


@pytest.fixture(scope="module")
def registered(model, tmp_path_factory, empty_store):
    """Return the model of MLflow, and the address of its store."""
    import mlflow

    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    shutil.copy(empty_store, folder / "mlflow.db")
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = mlflow.MlflowClient(uri)
    run = client.create_run(client.create_experiment("e", (folder / "artifacts").as_uri()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(any_to_any, "TokenizerSet", CountingTokenizers)
        model.save(folder / "model")
        set_active_run(ActiveRun(client, run.info.run_id))
        dataset = RegisteredModelDataset(**entry())
        dataset.save(folder / "model")
        client.set_registered_model_alias(entry()["name"], "candidate", "1")
        set_active_run(None)
        client.set_registered_model_alias(entry()["name"], "candidate", "1")  # a run does this at its end
        yield dataset.load()
    shutil.rmtree(folder)


def test_image_of_any_size_has_the_answer_in_process(registered, model):
    image = np.random.default_rng(0).integers(0, 256, (37, 100, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    expected = model.predict({"rgb": np.stack([as_image(image, 8)])}, ["depth", "caption"], seed=3, preset="dense")
    for given in ({"rgb": [text]}, {"rgb": [image.tolist()]}):
        found = registered.predict(given, params={"targets": ["depth", "caption"], "seed": 3, "preset": "dense"})
        np.testing.assert_array_equal(found["depth"], expected["depth"])
        assert found["caption"] == expected["caption"]


def test_version_shows_how_to_ask(registered):
    signature = registered.metadata.signature
    defaults = {spec.name: spec.default for spec in signature.params}
    assert signature.inputs.input_names() == list(entry()["inputs"])
    assert signature.outputs.input_names() == defaults["targets"]
    assert {"preset", "seed", "guidance", "temperature", "format"} <= set(defaults)
    assert registered.input_example == {"caption": [entry()["example"]["caption"]]}
    assert len(registered.predict(registered.input_example, params={"targets": ["depth"]})["depth"]) == 1


@pytest.mark.parametrize(
    ("inputs", "params", "sentence"),
    [
        (
            {"rgb": [np.full((8, 8, 3), 0.5).tolist()]},
            {},
            "Input 'rgb' has decimal numbers from 0.5 to 0.5; uint8 allows whole",
        ),
        ({"det": [[{"foo": 1}]]}, {}, "Unknown input 'det'."),
        ({"caption": ["a"]}, {"targets": ["sam_instance"]}, "Unknown target 'sam_instance'. Known: caption, depth."),
        ({"caption": ["a"]}, {"presett": "dense"}, "Unknown parameter 'presett'. Did you mean 'preset'?"),
        ({"caption": ["a"], "semsg": ["a"]}, {}, "Unknown input 'semsg'. Did you mean 'semseg'?"),
        ({"depth": [[[1.0, None], [1.0, 1.0]]]}, {}, "Input 'depth' must be nested lists of numbers, got null or text."),
    ],
)
def test_wrong_requests_are_refused(registered, inputs, params, sentence):
    with pytest.raises(InputError) as refused:
        registered.predict(inputs, params={"targets": ["depth"]} | params)
    assert json.loads(refused.value.serialize_as_json())["error"].startswith(sentence)


def test_environment_with_more_modalities_has_the_same_interface():
    found = entry("extended")
    assert found["loader"] == entry()["loader"] and set(found["params"]) == set(entry()["params"])
    assert set(found["params"]["targets"]) <= set(found["inputs"])
