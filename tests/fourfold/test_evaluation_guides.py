"""The guides for evaluation tasks, benchmarks and transfer tasks: their code is run and its objects are used end to end."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourfold.evaluation.benchmarks import evaluate_benchmarks
from fourfold.evaluation.benchmarks.suite import BenchmarkSubject, run_suite
from fourfold.evaluation.config import EvaluationConfig
from fourfold.evaluation.evaluate import evaluate
from fourfold.evaluation.report.gallery import collect_gallery
from fourfold.evaluation.report.page import ReportData, write_report
from fourfold.images import png
from fourfold.training.run_context import RunContext
from fourfold.transfer.arms import PretrainedModel
from fourfold.transfer.config import TransferConfig
from fourfold.transfer.finetuning import finetune
from fourfold.transfer.runs import describe_tasks
from tests.fourfold.evaluation.small_scenes import Oracle, evaluation_data
from tests.fourfold.transfer.tiny_model import tiny_model, tiny_text, transfer_data

GUIDES = Path(__file__).parents[2] / "docs/guides"


@pytest.fixture
def plugin_of(tmp_path, monkeypatch):
    """A function that makes the Python block of a guide a plug-in package and calls its `register()`.

    tests/conftest.py removes these entries after the test.
    """
    monkeypatch.syspath_prepend(tmp_path)

    def load(guide: str) -> None:
        (code,) = re.findall(r"```python\n(.*?)```", (GUIDES / f"{guide}.md").read_text(encoding="utf-8"), re.DOTALL)
        (tmp_path / "my_team").mkdir()
        (tmp_path / "my_team/__init__.py").write_text(code, encoding="utf-8")
        importlib.import_module("my_team").register()

    yield load
    sys.modules.pop("my_team", None)


def test_the_guide_adds_an_evaluation_task(plugin_of, tmp_path):
    plugin_of("add-an-evaluation-task")
    data = evaluation_data(tmp_path, val=6, test=8)
    model, config = (
        Oracle(data),
        EvaluationConfig(replicates=20, gallery_samples=2, tasks={"caption->depth": {"via": ["semseg"]}}),
    )
    table = evaluate(model, None, data, config, seed=0)["out_of_the_box"]
    entry = table["caption->depth"]["log_error"]
    assert entry["value"] == entry["teacher"] == 0 < entry["shuffled"] and entry["trivial"] > 0
    page = write_report(ReportData({"out_of_the_box": table}))
    assert "log error" in page and "caption → depth" in page
    gallery = collect_gallery(model, data, config, seed=0)
    assert gallery.caption_columns["depth"] == "depth" and "depth" in gallery.rows[0].from_caption


class FlatDepth:
    """Predicts two meters everywhere."""

    def image_side(self, name: str) -> int:
        return 16

    def predict(self, conditions, targets, *, preset=None, seed=0):
        return {"depth": np.full((len(conditions["rgb"]), 16, 16), 2.0)}


def test_the_guide_adds_a_benchmark(plugin_of, tmp_path):
    plugin_of("add-a-benchmark")
    for split, depths in (("train", (4.0, 4.0)), ("test", (2.0, 4.0))):
        (tmp_path / split).mkdir()
        for index, depth in enumerate(depths):
            (tmp_path / split / f"{index}.png").write_bytes(png(np.zeros((20, 30, 3), np.uint8)))
            np.save(tmp_path / split / f"{index}_depth.npy", np.full((20, 30), depth))
    config = EvaluationConfig(replicates=20, benchmarks={"indoor": {"reader": "depth_folder", "path": tmp_path}})
    result = evaluate_benchmarks(FlatDepth(), None, config, seed=0)
    entry = result["indoor"]["table"]["rgb->depth"]["abs_rel"]
    assert entry["value"] == pytest.approx((0 + 0.5) / 2)
    assert entry["trivial"] == pytest.approx((1 + 0) / 2) and entry["teacher"] is None
    assert "indoor (depth of my folder)" in write_report(ReportData({"benchmarks": result}))
    with pytest.raises(ValueError, match="has no depth maps"):
        config = EvaluationConfig(benchmarks={"indoor": {"reader": "depth_folder", "path": tmp_path, "split": "val"}})
        evaluate_benchmarks(FlatDepth(), None, config, seed=0)


def test_the_guide_adds_an_official_benchmark(plugin_of, tmp_path):
    plugin_of("add-an-official-benchmark")
    (tmp_path / "test").mkdir()
    for index, depth in enumerate((2000, 4000)):
        (tmp_path / f"test/{index}.png").write_bytes(png(np.zeros((20, 30, 3), np.uint8)))
        (tmp_path / f"test/{index}_depth.png").write_bytes(png(Image.fromarray(np.full((20, 30), depth, np.uint16))))
    config = EvaluationConfig(replicates=20, benchmarks={"warehouse": {"reader": "warehouse_depth", "path": tmp_path}})
    scores, page = run_suite(BenchmarkSubject(FlatDepth(), "mine"), config, 0, tmp_path / "out")
    assert scores["warehouse"]["abs_rel"]["value"] == pytest.approx((0 + 0.5) / 2)
    assert "our old network" in page and "internal report 7" in page
    assert sorted(path.name for path in (tmp_path / "out/warehouse/predictions").iterdir()) == ["0.png", "1.png"]


def test_the_guide_adds_a_transfer_task(plugin_of, tmp_path):
    plugin_of("add-a-transfer-task")
    assert len((tmp_path / "my_team/__init__.py").read_text(encoding="utf-8").splitlines()) < 30
    config = TransferConfig(
        tasks=("floor",), num_labels=(8,), num_seeds=1, steps=1, batch_size=8, num_selection=10, num_test=10
    )
    text = tiny_text()
    pretrained = PretrainedModel(tiny_model(text), text)
    result = finetune(pretrained, transfer_data(tmp_path / "data"), config, RunContext(0, tmp_path / "runs"))
    arms = result["transfer"]["floor_8"]["floor_accuracy"]
    assert set(arms) == {"pretrained", "scratch", "baseline"} and all(0 <= arm["mean"] <= 1 for arm in arms.values())
    page = write_report(ReportData({"transfer": result["transfer"]}, transfer_tasks=describe_tasks(["floor"])))
    assert "Texture of the floor" in page
