"""`compute.compile` and `precision` change what a run learns only by rounding."""

import sys
from pathlib import Path

import pytest
import torch

from fourfold.pretraining.config import ComputeConfig
from fourfold.pretraining.pretrain import pretrain
from fourfold.storage import read_json
from fourfold.training.run_context import RunContext

sys.path.insert(0, str(Path(__file__).parent))
from tiny_world import TinyTokenizers, tiny_config, write_world

pytestmark = pytest.mark.numeric


def curve(folder: Path, name: str) -> torch.Tensor:
    return torch.tensor([metrics[name] for metrics in read_json(folder / "history.json") if name in metrics])


def run(root: Path, name: str, **changes) -> Path:
    world = write_world(root / "world")
    settings = {"total_tokens": 6 * 3 * 18, "log_every": 1, "precision": "fp32", "validate_every": 6}
    pretrain(*world, TinyTokenizers(), tiny_config(**settings | changes), RunContext(7, root / name))
    return root / name


def test_a_bfloat16_run_has_nearly_the_losses_of_a_float32_run(tmp_path):
    steps = {"total_tokens": 18 * 3 * 18, "validate_every": 18}
    exact, rough = (run(tmp_path / kind, "run", precision=kind, **steps) for kind in ("fp32", "bf16"))
    for name in ("loss", "validation/loss"):
        found, expected = curve(rough, name), curve(exact, name)
        assert not torch.equal(found, expected)
        torch.testing.assert_close(found, expected, rtol=4 * torch.finfo(torch.bfloat16).eps, atol=0)  # 3 %
    assert len(curve(rough, "loss")) == 18 and curve(rough, "skipped_steps").max() == 0
    assert curve(rough, "loss")[-3:].mean() < 0.97 * curve(rough, "loss")[:3].mean()


@pytest.mark.slow
def test_a_compiled_run_has_the_losses_and_gradients_of_an_eager_one(tmp_path):
    from torch._dynamo.utils import counters

    folders = {}
    for name, compute in (("eager", ComputeConfig()), ("compiled", ComputeConfig(compile=True))):
        counters.clear()
        folders[name] = run(tmp_path / name, "run", compute=compute)
        assert (counters["stats"]["unique_graphs"] > 0) == (name == "compiled"), counters
    assert counters["stats"]["calls_captured"] > 50
    for name in ("loss", "gradient_norm", "validation/loss"):
        eager, compiled = curve(folders["eager"], name), curve(folders["compiled"], name)
        assert len(eager) >= 1
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)
