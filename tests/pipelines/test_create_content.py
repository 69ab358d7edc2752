"""The commands of docs/guides/create-content.md, one after the other, in a clone with a finished run."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from tiny import ENVIRONMENT

from pipelines.cli import cli

GUIDE = Path(__file__).parents[2] / "docs/guides/create-content.md"


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    folder = tmp_path / "clone"
    shutil.copytree(finished, folder, symlinks=True)
    monkeypatch.chdir(folder)
    photos = Path("photos/trip")
    photos.mkdir(parents=True)
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{seed}.jpg")
    (photos / "broken.jpg").write_bytes(b"no image")
    mask = np.zeros((64, 64), np.uint8)
    mask[8:24, 30:50] = 255
    Image.fromarray(mask).save("mask.png")
    return folder


def test_each_command_of_the_guide_does_what_the_guide_says(project):
    commands = re.findall(r"^kedro (.*)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
    for command in commands:
        done = CliRunner().invoke(cli, [*shlex.split(command), f"--env={ENVIRONMENT}"])
        assert done.exit_code == 0, done.output
    assert {"made", "edited", "filled", "captions", "found"} <= {path.name for path in project.iterdir()}
    made, filled = (np.asarray(Image.open(project / name / "rgb.png")) for name in ("made", "filled"))
    mask = np.asarray(Image.open("mask.png")) > 0
    assert np.array_equal(made[~mask], filled[~mask]) and not np.array_equal(made[mask], filled[mask])
    for path in project.glob("*/rgb.png"):
        with Image.open(path) as image:
            facts = json.loads(image.text["fourfold"])
            assert len(facts["model"]) == 64 and "conditions" not in facts
    lines = (project / "captions/trip/metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["file_name"] for line in lines] == ["0.jpg", "1.jpg", "2.jpg"]
    assert "broken.jpg" in (project / "captions/trip/skipped.jsonl").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--image", "photos", "--mask", "mask.png", "--to", "rgb"), "A folder as --image goes with --caption only."),
        (("--image", "mask.png", "--mask", "mask.png", "--to", "rgb,depth"), "--mask needs one label in --to"),
        (("--caption", "a cone", "--mask", "mask.png", "--to", "rgb"), "--mask needs one label in --to, and its value"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    Image.new("L", (8, 8)).save("mask.png")
    done = CliRunner().invoke(cli, ["generate", *options])
    assert done.exit_code == 2 and message in done.output
