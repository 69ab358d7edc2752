"""The commands of docs/guides/driving.md, one after the other, on tiny sets in the layouts of Cityscapes and KITTI."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from checkout import clone
from cityscapes_files import write_streets
from preloaded import Command
from tiny import PARAMETERS, VQVAE

from fourfold.data.shards import ShardSet
from fourfold.labelers.cityscapes.classes import CLASS_TABLE
from pipelines.cli import cli

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.fourfold.evaluation.benchmarks import tiny_sets

ROOT = Path(__file__).parents[2]
GUIDE, CONF = ROOT / "docs/guides/driving.md", ROOT / "conf/driving/parameters.yml"
LIMIT = 600  # seconds
SMALL = {
    "num_threads": 1,
    "ingestion": {"image_size": 32, "samples_per_shard": 16, "val_share": 0.2, "test_share": 0.2, "cleaning": {"min_side": 8}},
    "tokenizer_training": {"grid": [4, 4], "visual": dict.fromkeys(("rgb", "depth", "semseg"), VQVAE | {"batch_size": 8})},
    "pretraining": PARAMETERS["pretraining"] | {"total_tokens": 2304, "warmup_tokens": 576, "validation_samples": 8},
    "evaluation": PARAMETERS["evaluation"],
}
DRIVE = "2011_09_26_drive_0001_sync"
SIZE = (37, 124)  # KITTI's proportions


def merged(base: dict, other: dict) -> dict:
    """Values of `other` over those of `base`, as Kedro merges environments."""
    both = {k: merged(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v for k, v in other.items()}
    return {**base, **both}


def write_drive(folder: Path) -> None:
    """Write three frames of one drive, and LiDAR for two of them, as KITTI stores both."""
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        depth = np.full(SIZE, 256 * (number + 4), np.uint16)
        depth[: SIZE[0] // 2] = 0  # LiDAR does not see the sky
        for kind, values in (("drives", pixels), ("lidar", depth)):
            (folder / kind / DRIVE).mkdir(parents=True, exist_ok=True)
            if kind == "drives" or number:
                Image.fromarray(values).save(folder / kind / DRIVE / f"{number:010d}.png")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    small = merged(yaml.safe_load(CONF.read_text()), SMALL)
    folder = clone(tmp_path / "clone", files={str(CONF.relative_to(ROOT)): yaml.safe_dump(small, sort_keys=False)})
    write_streets(folder / "datasets/cityscapes", "train", 40)
    write_streets(folder / "datasets/cityscapes", "val", 3, seed=1)
    tiny_sets.kitti(folder / "datasets/kitti")
    write_drive(folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3 * LIMIT)
def test_each_command_of_the_guide_does_what_the_guide_says(project):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(project / "src"), str(project)])}
    output = []
    for number, command in enumerate(re.findall(r"^(kedro .*)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)):
        done = Command(shlex.split(command), project, environment, project.with_suffix(f".{number}.log"))
        assert done.wait(LIMIT) == 0, f"{command}: {done.text()[-3000:]}"
        output.append(done.text())
    # 1) Labels are those of Cityscapes
    labels = ShardSet(project / "data/02_labels/shards")
    assert labels.class_table("train") == CLASS_TABLE and set(labels.modalities("train")) == {"depth", "semseg", "det"}
    # 2) Frames, in their size
    _, seen, measured, _ = output
    assert "3 answered" in seen and re.search(r"budget 100 ms: \d of 3 frames late", seen)
    assert "3 answered" in measured and "1 without sparse depth" in measured
    for name, expected in (("seen", [None] * 3), ("measured", [None, True, True])):
        folder = project / name / DRIVE
        rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        assert [row["file_name"] for row in rows] == [f"{number:010d}.png" for number in range(3)]
        for row in rows:
            depth, classes = (np.asarray(Image.open(folder / row[kind])) for kind in ("depth", "semseg"))
            assert depth.shape == classes.shape == SIZE and depth.dtype == np.uint16 and depth.min() > 0
            assert classes.max() < CLASS_TABLE.num_classes
        assert [row["sparse_tokens"][0] > 0 if "sparse_tokens" in row else None for row in rows] == expected
    # 3) Scores, by class too
    results = {path.parent.name: json.loads(path.read_text()) for path in project.glob("data/benchmarks/*/results.json")}
    assert set(results) == {"cityscapes", "kitti"} and results["kitti"]["scores"]["abs_rel"]["value"] > 0
    assert results["cityscapes"]["samples"] == 3 and results["cityscapes"]["failures"]
    assert results["cityscapes"]["details"]["iou"]["road"] is not None
    assert results["cityscapes"]["details"]["not_in_the_model"] == []
    assert "sidewalk" in (project / "data/benchmarks/cityscapes/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--caption", "a car", "--view", "squash"), "--view and --budget need --image"),
        (("--image", "a.png", "--caption", "a car", "--budget", "50"), "go with --image and --given depth=LIDAR only"),
        (("--image", "a.png", "--mask", "a.png", "--view", "crop"), "go with --image and --given depth=LIDAR only"),
        (("--image", "a.png", "--view", "fisheye"), "'squash', 'crop', 'windows'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8)).save("a.png")
    done = CliRunner().invoke(cli, ["generate", "--to", "depth", *options])
    assert done.exit_code == 2 and message in " ".join(done.output.split())


def test_impossible_budget_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8)).save("a.png")
    done = CliRunner().invoke(cli, ["generate", "--to", "depth", "--image", "a.png", "--budget=-5"])
    assert done.exit_code == 78 and "The budget of a frame is -5 ms; it must be above 0" in done.output
