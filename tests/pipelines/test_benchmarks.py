"""`kedro run` of a finished model on public benchmarks, one of each kind, and `kedro bench list`."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from checkout import start_run
from click.testing import CliRunner

from fourfold.evaluation.benchmarks import OFFICIAL
from fourfold.scenes.world.vocabulary import OBJECT_CLASSES
from pipelines.bench import names_model
from pipelines.cli import cli

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.fourfold.evaluation.benchmarks import tiny_sets

STAGES = ("ingestion", "pseudo_labeling", "tokenizer_training", "pretraining", "finetuning")
SETS = {
    "kitti_depth": (tiny_sets.kitti, {}),
    "cityscapes": (tiny_sets.cityscapes, {"class_names": {"ground": "road"}, "flip": True}),
    "voc2007_boxes": (lambda root: tiny_sets.voc(root, 2007), {"class_names": {OBJECT_CLASSES[0]: "dog"}}),
    "coco_captions": (tiny_sets.coco, {}),
    "vqav2": (tiny_sets.vqa, {}),
    "imagenet_zero_shot": (tiny_sets.imagenet, {}),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_registered_model_is_scored_on_one_benchmark_of_each_kind(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "project", symlinks=True)
    benchmarks = {"gone": {"reader": "gqa", "path": "datasets/gqa"}}
    for name, (make, settings) in SETS.items():
        make(tmp_path / "datasets" / name)
        benchmarks[name] = {"reader": name, "path": str(tmp_path / "datasets" / name), **settings}
    (folder / "conf/public").mkdir()
    content = {stage: {} for stage in STAGES} | {"num_threads": 1, "evaluation": {"replicates": 20, "benchmarks": benchmarks}}
    (folder / "conf/public/parameters.yml").write_text(yaml.safe_dump(content))
    before = (folder / "data/05_reports/metrics.json").read_bytes()
    options = ("--env=public", "--pipelines=evaluation", "--params=evaluation.model=models:/fourfold@candidate")
    command = start_run(folder, *options)
    assert command.wait(600) == 0, command.text()[-3000:]
    text = command.text()
    assert "Left out: GQA" in text and "KITTI depth, Eigen split" in text and "Monodepth2" in text
    scores = json.loads((folder / "data/benchmarks/latest.json").read_text())
    assert set(scores) == set(SETS) and all(len(scores[name]) >= 2 for name in scores)
    assert scores["kitti_depth"]["abs_rel"]["ci95"] and 0 <= scores["cityscapes"]["miou"]["value"] <= 1
    for name in ("cityscapes", "voc2007_boxes", "coco_captions", "vqav2", "imagenet_zero_shot", "kitti_depth"):
        assert any((folder / f"data/benchmarks/{name}/predictions").iterdir()), name
    stored = json.loads((folder / "data/benchmarks/cityscapes/results.json").read_text())
    assert stored["model"] == "models:/fourfold@candidate" and stored["details"]["iou"]["road"] is not None
    assert (folder / "data/05_reports/metrics.json").read_bytes() == before  # the results of the project's own run


def test_the_list_names_every_benchmark_and_what_its_data_need():
    result = CliRunner().invoke(cli, ["bench", "list"])
    assert result.exit_code == 0, result.output
    assert all(f"{benchmark.name}: {benchmark.title} [no data]" in result.output for benchmark in OFFICIAL)
    assert "no environment" not in result.output  # each has one
    assert "missing: leftImg8bit/val/*/*_leftImg8bit.png" in result.output and "cityscapes-dataset.com" in result.output
    assert f"0 of {len(OFFICIAL)} benchmarks have their data" in result.output


def test_a_run_names_a_model_in_any_form_of_the_parameter():
    assert names_model({"evaluation": {"model": "x"}}) and names_model("seed=1,evaluation.model=models:/fourfold@champion")
    assert not names_model({"evaluation": {"replicates": 5}}) and not names_model("evaluation.replicates=5")
    assert not names_model(None) and not names_model({})
