"""Released weights as the model of a project: imported, fine-tuned, evaluated, registered and served."""

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import requests
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from preloaded import Command, run
from tiny import ENVIRONMENT

from fourfold.generation.any_to_any import AnyToAny
from fourfold.storage import read_json
from tests.support.released_set import make_released_set, tiny

SIDE = 64  # pixels of the images of the project
LIMIT = 300  # seconds
SHORT = {"generation": {"sequences": {"max_tokens": 6}}}  # random weights never end a text


def environment_of(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{folder}"}


def kedro(folder: Path, *arguments: str) -> str:
    done = run(["kedro", *arguments], folder, environment_of(folder), LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout + done.stderr


@contextmanager
def serving(folder: Path, model: str) -> Iterator[str]:
    """Yield the address at which `kedro serve` answers."""
    command = Command(["kedro", "serve", f"--model={model}", "--port=0"], folder, environment_of(folder), folder / "serve.log")
    try:
        deadline = time.monotonic() + LIMIT
        while not (found := re.search(r"Serving \S+ at (http://[\d.:]+)", command.text())):
            assert time.monotonic() < deadline and command.poll() is None, command.text()
            time.sleep(0.05)
        while requests.get(f"{found[1]}/ready", timeout=60).status_code != 200:
            assert time.monotonic() < deadline, command.text()
            time.sleep(0.05)
        yield found[1]
    finally:
        command.kill()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_imported_model_is_fine_tuned_evaluated_registered_and_served(finished, tmp_path):
    # 1) A project with labeled images, in which no tokenizer and no transformer was ever trained
    folder = shutil.copytree(finished, tmp_path / "project", symlinks=True)
    for name in ("data/03_tokens", "data/04_models", "data/05_reports"):
        shutil.rmtree(folder / name)
    settings = folder / f"conf/{ENVIRONMENT}/parameters.yml"
    values = yaml.safe_load(settings.read_text())
    values["evaluation"]["tasks"] = dict.fromkeys(("rgb->caption", "rgb->det"), SHORT)
    settings.write_text(yaml.safe_dump(values))
    released = make_released_set(tmp_path / "released", tiny(SIDE))
    assert "License of the weights: 4M-21_B/LICENSE" in kedro(folder, "import-released", str(released))
    # 2) Fine-tuning and evaluation; DVC records the results
    log = kedro(folder, "run", f"--env={ENVIRONMENT}", "--pipelines=finetuning,evaluation")
    metrics = read_json(folder / "data/05_reports/metrics.json")
    model = AnyToAny.from_released(released)
    assert metrics["model"] == model.digest() and metrics["released"] == model.provenance["files"]
    assert metrics["tokenizers"] == metrics["pretraining"] == {}
    assert set(metrics["transfer"]) == {"vqa_8", "captioning_8", "attributes_8"}
    # what fits is scored; classes and features of other networks are named instead of compared
    assert set(metrics["out_of_the_box"]) == {"rgb->depth", "rgb->normal", "rgb->det", "rgb->caption", "caption->rgb"}
    assert len(metrics["left_out"]) == 4 and "the model predicts 133 classes, and the data has 6 (sky" in log
    assert "depth is scaled and shifted to it" in metrics["reference"]
    page = (folder / "data/05_reports/report.html").read_text()
    assert "of shape (4, 4, 5)" in page and "kedro run --pipelines=pretraining" not in page
    # 3) The registered model answers as the released files do
    assert "is the candidate" in log
    caption, targets = "a man rides", ["depth", "normal"]
    with serving(folder, "fourfold@candidate") as address:
        body = {"inputs": {"caption": caption}, "params": {"targets": targets}}
        answer = requests.post(f"{address}/predict", json=body, timeout=120).json()["outputs"]
    expected = model.predict({"caption": [caption]}, targets)
    for name in targets:
        assert np.array_equal(np.asarray(answer[name], expected[name].dtype), expected[name][0]), name
