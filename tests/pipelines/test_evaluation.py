"""Metrics and report never show results of another model beside the evaluated one."""

import re
from typing import Any

import pytest

from fourfold.evaluation.config import EvaluationConfig
from pipelines.evaluation.nodes import gather_metrics, publish_model, write_page

DIGESTS = {name: name[:3] * 20 for name in ("model", "weights", "tokenizers", "teachers", "labels")}
SCORES = {"model": DIGESTS["model"], "about": DIGESTS, "out_of_the_box": {}, "samples": 48}
TRANSFER = {
    "model": DIGESTS["model"],
    "transfer": {"vqa_200": {"accuracy": {"pretrained": {"mean": 0.75, "std": 0.0, "n": 1}}}},
    "tasks": {"vqa": {"title": "Visual questions", "metrics": [{"name": "accuracy", "title": "accuracy"}]}},
    "examples": [{"task": "vqa", "prompt": "What is red?", "answer": "cone", "pretrained": "cube"}],
}
TEACHERS = {"depth/abs_rel": 0.0625, "about": {"teachers": DIGESTS["teachers"], "labels": DIGESTS["labels"]}}
TOKENIZERS = {"rgb/psnr": 20.5, "about": {"tokenizers": DIGESTS["tokenizers"], "labels": DIGESTS["labels"]}}
TRAINED = {"parameters": 2_900_000, "samples": 320, "about": {"weights": DIGESTS["weights"]}}
SHOWN = {"transfer": "Visual questions", "teachers": "0.062", "tokenizers": "20.5", "pretraining": "2.9 M"}


def report(transfer: Any, *stored: Any) -> tuple[dict[str, Any], str]:
    metrics = gather_metrics(SCORES, transfer, *stored)
    history = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}]
    return metrics, write_page(metrics, {}, {}, transfer, history, {}, {}, {}, {}, EvaluationConfig())


def test_results_of_the_evaluated_model_are_in_metrics_and_report(caplog):
    metrics, page = report(TRANSFER, TEACHERS, TOKENIZERS, TRAINED)
    assert "left_out" not in metrics and not caplog.text and "left out" not in page
    assert metrics["transfer"] == TRANSFER["transfer"] and metrics["about"] == DIGESTS
    assert metrics["teachers"] == {"depth/abs_rel": 0.0625} and "about" not in metrics["tokenizers"] | metrics["pretraining"]
    assert all(text in page for text in SHOWN.values()) and "What is red?" in page


@pytest.mark.parametrize("name", SHOWN)
def test_results_of_another_model_are_named_instead_of_shown(name, caplog):
    stored: dict[str, Any] = {"transfer": TRANSFER, "teachers": TEACHERS, "tokenizers": TOKENIZERS, "pretraining": TRAINED}
    other = {"model": "other"} if name == "transfer" else {"about": dict.fromkeys(stored[name]["about"], "other")}
    stored[name] = stored[name] | other
    metrics, page = report(*stored.values())
    assert metrics[name] == {} and len(metrics["left_out"]) == 1
    assert caplog.text.count("left out") == 1 and "kedro run --pipelines=" in page
    assert {other: text in page for other, text in SHOWN.items()} == {other: other != name for other in SHOWN}
    assert ("What is red?" in page) == (name != "transfer")


class Model:
    def digest(self) -> str:
        return "the model in the folder"


@pytest.mark.parametrize("other", [None, "metrics", "replicates"])
def test_only_results_of_the_model_in_the_folder_are_published(other, tmp_path):
    about = {name: "another model" if name == other else Model().digest() for name in ("metrics", "replicates")}
    metrics, replicates = {"model": about["metrics"], "out_of_the_box": {"rgb->depth": {}}}, {"subject": about["replicates"]}
    arguments: Any = (tmp_path, Model(), metrics, replicates, "<html>", "# Model card")
    if other is None:
        assert (publish_model(*arguments).folder, publish_model(*arguments).evidence) == (tmp_path, replicates)
    else:
        with pytest.raises(ValueError, match=f"The {other} are about model another .* the folder has model the mode"):
            publish_model(*arguments)


def test_curves_of_teachers_and_tokenizers_are_drawn_only_for_the_evaluated_model():
    curve = [{"step": step, "loss": 1 / step} for step in (1, 2, 3)]
    histories = {"scene_network": curve}, {"rgb": curve, "rgb/diffusion": curve}
    for tokenizers, expected in ((TOKENIZERS, ["scene_network", "rgb", "rgb/diffusion"]), ({}, ["scene_network"])):
        metrics = gather_metrics(SCORES, TRANSFER, TEACHERS, tokenizers, TRAINED)
        page = write_page(metrics, {}, {}, TRANSFER, [], *histories, {}, {}, EvaluationConfig())
        assert re.findall(r'aria-label="Training loss over steps: ([^"]*)"', page) == expected
