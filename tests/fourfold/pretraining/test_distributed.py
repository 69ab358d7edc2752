import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fourfold.storage import read_json

SCRIPT = Path(__file__).with_name("tiny_distributed.py")


def trained(root: Path, case: str) -> Path:
    done = subprocess.run([sys.executable, SCRIPT, root, case], capture_output=True, text=True, timeout=240)
    logs = "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted(root.glob("*.log")))
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{logs}"
    return root


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("two"), "two")


def curve(folder: Path, name: str) -> torch.Tensor:
    return torch.tensor([figures[name] for figures in read_json(folder / "history.json") if name in figures])


def assert_equal_runs(found: Path, expected: Path) -> None:
    for name in ("loss", "gradient_norm", "tok_depth", "caption", "validation/loss", "validation/det"):
        torch.testing.assert_close(curve(found, name), curve(expected, name), rtol=2e-4, atol=2e-5)
    assert len(curve(found, "loss")) == 14
    weights, others = (load_file(folder / "last" / "model.safetensors") for folder in (found, expected))
    assert weights.keys() == others.keys()
    for name in weights:
        torch.testing.assert_close(weights[name], others[name], rtol=0, atol=2e-3)


@pytest.mark.parametrize("how", ["ddp", "ddp_accumulated", "ddp_recomputed", "fsdp"])
def test_two_ranks_with_half_a_batch_each_give_the_loss_curve_of_one(two, how):
    assert_equal_runs(two / how, two / "alone")


def test_accumulated_parts_of_a_batch_give_the_loss_curve_of_the_whole(two):
    assert_equal_runs(two / "accumulated", two / "alone")


def test_a_run_killed_on_two_sharded_ranks_and_preempted_on_two_whole_ones_goes_on_alone(two):
    assert_equal_runs(two / "moved", two / "alone")


def test_four_sharded_ranks_preempted_and_continued_by_two_give_the_loss_curve_of_one(tmp_path):
    root = trained(tmp_path, "four")
    assert_equal_runs(root / "fsdp", root / "alone")
