"""Several processes, micro-batches and resumed runs learn what one process learns, in float32 and in bfloat16.

Tolerances. Runs that compute the same step in another way differ by rounding:

- float32: sums are taken in another order, which changes gradients by a few eps = 1.2e-7. Muon and AdamW normalize their
  updates, so the error of an entry that is small beside the others grows; over 14 steps it stays below 2e-4 of the losses.
- bfloat16: the gradient of a weight is rounded to 8 bits once per backward pass. With n terms (micro-batches times
  processes) their sum has n rounding errors of at most eps / 2 each, eps = 2^-7, and the gradient of the whole batch has
  one: together at most (n + 1) / 2 eps. Errors of different entries are independent, so in practice they are smaller (on
  AVX2 at most 0.003 for the gradient norm), which leaves room for terms that cancel in part. The same tolerance holds for
  the losses, which change less than the gradients, and eps for the relative distance of all weights.

A lost or doubled micro-batch changes the gradient by about 1 / n of its norm, well above either.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fourfold.storage import read_json

pytestmark = pytest.mark.numeric
SCRIPT = Path(__file__).with_name("tiny_distributed.py")
CURVES = ("loss", "gradient_norm", "tok_depth", "caption", "validation/loss", "validation/det")
BF16_EPS = torch.finfo(torch.bfloat16).eps


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("distributed")
    done = subprocess.run([sys.executable, SCRIPT, root], capture_output=True, text=True, timeout=500)
    logs = "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted(root.glob("*.log")))
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{logs}"
    return root


def curve(folder: Path, name: str) -> torch.Tensor:
    return torch.tensor([metrics[name] for metrics in read_json(folder / "history.json") if name in metrics])


def assert_equal_curves(folder: Path, reference: Path, rtol: float, atol: float) -> None:
    for name in CURVES:
        torch.testing.assert_close(curve(folder, name), curve(reference, name), rtol=rtol, atol=atol)
    assert len(curve(folder, "loss")) == 14


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "last" / "model.safetensors")


@pytest.mark.parametrize("case", ["accumulated", "ddp", "ddp_accumulated", "ddp_recomputed", "fsdp", "moved", "four_then_two"])
def test_float32_runs_equal_the_run_of_one_process(runs, case):
    assert_equal_curves(runs / case, runs / "alone", rtol=2e-4, atol=2e-5)
    found, expected = weights(runs / case), weights(runs / "alone")
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=2e-3)


@pytest.mark.parametrize(("case", "num_terms"), [("accumulated_bf16", 3), ("ddp_accumulated_bf16", 4), ("fsdp_bf16", 4)])
def test_bfloat16_runs_equal_the_run_of_one_process_within_rounding(runs, case, num_terms):
    assert_equal_curves(runs / case, runs / "alone_bf16", rtol=(num_terms + 1) / 2 * BF16_EPS, atol=0)
    found, expected = (
        torch.cat([tensor.flatten() for tensor in weights(run).values()]) for run in (runs / case, runs / "alone_bf16")
    )
    assert torch.linalg.vector_norm(found - expected) < BF16_EPS * torch.linalg.vector_norm(expected)


def test_bfloat16_and_float32_runs_differ(runs):
    assert not torch.equal(curve(runs / "alone_bf16", "loss"), curve(runs / "alone", "loss"))
