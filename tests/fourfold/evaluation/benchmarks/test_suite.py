"""All configured benchmarks of one model: files, report and list."""

import json

import numpy as np
import pytest

from fourfold.evaluation.benchmarks import OFFICIAL, evaluate_benchmarks
from fourfold.evaluation.benchmarks.official import Failures
from fourfold.evaluation.benchmarks.suite import BenchmarkSubject, list_benchmarks, run_suite
from fourfold.evaluation.config import EvaluationConfig
from tests.fourfold.evaluation.benchmarks import tiny_sets
from tests.fourfold.evaluation.benchmarks.tiny_sets import Given, flat


def config(**benchmarks):
    return EvaluationConfig(replicates=10, benchmarks=benchmarks)


@pytest.fixture
def kitti_and_vqa(tmp_path):
    tiny_sets.kitti(tmp_path / "kitti")
    tiny_sets.vqa(tmp_path / "vqa")
    return config(
        driving={"reader": "kitti_depth", "path": tmp_path / "kitti"},
        answers={"reader": "vqav2", "path": tmp_path / "vqa"},
        nothing={"reader": "gqa", "path": tmp_path / "nowhere"},
    )


def test_results_report_and_predictions_of_every_benchmark_with_data(kitti_and_vqa, tmp_path, caplog):
    model = Given(depth=lambda i: flat(9.0 * (i + 1)), caption=lambda i: ("Is it a dog? <b>no</b>", "2")[i])
    scores, page = run_suite(BenchmarkSubject(model, "mine"), kitti_and_vqa, 0, tmp_path / "out")
    assert scores["driving"]["abs_rel"]["value"] == pytest.approx(0.1) and scores["driving"]["samples"] == 2
    stored = json.loads((tmp_path / "out/driving/results.json").read_text())
    assert stored["scores"] == {k: v for k, v in scores["driving"].items() if k != "samples"} and stored["model"] == "mine"
    assert len(list((tmp_path / "out/driving/predictions").iterdir())) == 2
    assert "Monodepth2" in page and "not the whole split" in page and "&lt;b&gt;no" in page and "<b>no" not in page
    assert "data:image/png" in (tmp_path / "out/driving/report.html").read_text()
    assert "Left out: GQA: no questions1.2/testdev_balanced_questions.json" in caplog.text


def test_the_same_seed_gives_the_same_bytes(kitti_and_vqa, tmp_path):
    for name in ("first", "second"):
        model = Given(depth=lambda i: flat(7.0 + i), caption=lambda i: "yes")
        run_suite(BenchmarkSubject(model, "mine"), kitti_and_vqa, 3, tmp_path / name)
    files = [sorted(path.relative_to(tmp_path / n) for path in (tmp_path / n).rglob("*.*")) for n in ("first", "second")]
    assert files[0] == files[1] and len(files[0]) == 7
    assert all((tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes() for file in files[0])


def test_without_any_data_there_is_one_error(tmp_path):
    nowhere = config(a={"reader": "gqa", "path": tmp_path / "x"}, b={"reader": "ade20k", "path": tmp_path / "y"})
    with pytest.raises(
        ValueError, match=r"GQA: no questions1.2/testdev_balanced_questions.json in .*/x. Get the data from the GQA"
    ):
        run_suite(BenchmarkSubject(Given(), "mine"), nowhere, 0, tmp_path)
    with pytest.raises(ValueError, match="No benchmark is configured"):
        run_suite(BenchmarkSubject(Given(), "mine"), config(), 0, tmp_path)
    with pytest.raises(ValueError, match="class_folders is scored by"):
        run_suite(BenchmarkSubject(Given(), "mine"), config(a={"reader": "class_folders", "path": tmp_path}), 0, tmp_path)


def test_an_unknown_split_ends_the_run_whatever_else_is_there(kitti_and_vqa, tmp_path):
    wrong = kitti_and_vqa.benchmarks["nothing"].model_copy(update={"split": "dream"})
    mixed = kitti_and_vqa.model_copy(update={"benchmarks": kitti_and_vqa.benchmarks | {"nothing": wrong}})
    with pytest.raises(ValueError, match=r"GQA has no split 'dream'. Allowed: train_balanced"):
        run_suite(BenchmarkSubject(Given(), "mine"), mixed, 0, tmp_path)


def test_the_evaluation_stage_leaves_official_benchmarks_to_their_own_run(tmp_path, caplog):
    assert evaluate_benchmarks(Given(), None, config(a={"reader": "gqa", "path": tmp_path}), 0) == {}
    assert "Benchmark a is left out here" in caplog.text


def test_the_list_says_what_is_there_and_what_is_missing(tmp_path):
    tiny_sets.vqa(tmp_path)
    configured = {"vqav2": {"answers": {"reader": "vqav2", "path": str(tmp_path)}}}
    rows = {row.name: row for row in list_benchmarks(configured)}
    assert set(rows) == {benchmark.name for benchmark in OFFICIAL}
    assert rows["vqav2"].missing == () and rows["vqav2"].environment == "vqav2"
    assert rows["gqa"].path is None and rows["gqa"].missing == rows["gqa"].layout
    (tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").unlink()
    assert list_benchmarks(configured)[-1].name == "vqav2"
    assert list_benchmarks(configured)[-1].missing == ("v2_OpenEnded_mscoco_val2014_questions.json",)


def test_only_the_worst_examples_are_kept():
    failures = Failures()
    for index, error in enumerate(np.random.default_rng(0).permutation(50) / 10):
        if failures.is_bad(error):
            failures.add(float(error), str(index), [])
    assert [entry["error"] for entry in failures.entries()] == [4.9, 4.8, 4.7, 4.6, 4.5, 4.4]
