"""Two processes with slices of each batch must end with the weights of one process with whole batches."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fourfold.storage import read_json
from fourfold.tokenizers.tokenizer_set import TokenizerSet
from fourfold.training.histories import read_histories

from ..test_tokenizer_set import files_of

SCRIPT = Path(__file__).with_name("tiny_ranks.py")


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run([sys.executable, SCRIPT, world[0].root.parent, folder], capture_output=True, text=True, timeout=240)
    logs = "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted(folder.glob("*.log")))
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{logs}"
    return folder


def assert_equal_weights(found: Path, expected: Path) -> None:
    paths = sorted(path.relative_to(expected) for path in expected.rglob("weights.safetensors"))
    assert [str(path) for path in paths] == [
        f"{name}/weights.safetensors" for name in ("clip", "clip_global", "rgb/diffusion", "rgb", "semseg")
    ]
    for path in paths:
        weights, others = load_file(found / path), load_file(expected / path)
        assert weights.keys() == others.keys()
        for name in weights:
            torch.testing.assert_close(weights[name], others[name], rtol=1e-3, atol=2e-4, msg=f"{path}: {name}")


def test_two_processes_give_the_losses_of_one(runs):
    alone, together = (read_json(runs / f"{name}.json") for name in ("alone", "together"))
    assert alone.keys() == together.keys()
    assert len(alone["semseg/loss"]) == 12 and len(alone["rgb/diffusion/loss"]) == 6
    for name in alone:
        assert alone[name].keys() == together[name].keys()
        assert list(together[name].values()) == pytest.approx(list(alone[name].values()), rel=2e-4, abs=1e-5), name


def test_the_curves_of_each_training_stay_beside_its_weights(runs):
    logged, kept = read_json(runs / "alone.json"), read_histories(runs / "alone")
    assert sorted(kept) == ["clip", "clip_global", "rgb", "rgb/diffusion", "semseg"]
    for name, history in kept.items():
        assert {str(row["step"]): row["loss"] for row in history if "loss" in row} == logged[f"{name}/loss"], name
    (path := runs / "alone/semseg/history.json").write_text(path.read_text() + " ")
    assert sorted(read_histories(runs / "alone")) == sorted(kept.keys() - {"semseg"})  # a changed file is no curve


def test_two_processes_end_with_the_weights_and_the_codes_of_one(runs):
    assert_equal_weights(runs / "together", runs / "alone")


def test_runs_replace_dead_codes(runs):
    assert sum(read_json(runs / "together.json")["rgb/replaced"].values()) > 0


def test_interrupted_processes_end_in_the_bytes_of_an_unbroken_run(runs):
    assert files_of(runs / "resumed") == files_of(runs / "together")


def test_one_process_finishes_a_run_of_two(runs):
    assert_equal_weights(runs / "moved", runs / "alone")
    assert TokenizerSet.load(runs / "moved").modalities == [
        "caption",
        "det",
        *(f"tok_{name}" for name in ("clip", "clip_global", "rgb", "semseg")),
    ]
