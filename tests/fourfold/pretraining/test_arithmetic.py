"""How a run is computed changes what it learns by rounding alone: `place.compile`, `precision`."""

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


def curve(folder: Path, name: str) -> torch.Tensor:
    return torch.tensor([figures[name] for figures in read_json(folder / "history.json") if name in figures])


def run(root: Path, name: str, **changes) -> Path:
    world = write_world(root / "world")
    settings = {"total_tokens": 6 * 3 * 18, "log_every": 1, "precision": "fp32", "validate_every": 6}
    pretrain(*world, TinyTokenizers(), tiny_config(**settings | changes), RunContext(7, root / name))
    return root / name


def test_a_run_in_bfloat16_gives_losses_near_those_of_float32(tmp_path):
    steps = {"total_tokens": 18 * 3 * 18, "validate_every": 18}
    exact, rough = (run(tmp_path / kind, "run", precision=kind, **steps) for kind in ("fp32", "bf16"))
    for figure in ("loss", "validation/loss"):
        found, wanted = curve(rough, figure), curve(exact, figure)
        assert not torch.equal(found, wanted)
        torch.testing.assert_close(found, wanted, rtol=0.03, atol=0)
    assert len(curve(rough, "loss")) == 18 and curve(rough, "skipped_steps").max() == 0
    assert curve(rough, "loss")[-3:].mean() < 0.97 * curve(rough, "loss")[:3].mean()


@pytest.mark.slow
def test_a_compiled_run_gives_the_losses_and_gradients_of_an_eager_one(tmp_path):
    from torch._dynamo.utils import counters

    folders = {}
    for name, compute in (("eager", ComputeConfig()), ("compiled", ComputeConfig(compile=True))):
        counters.clear()
        folders[name] = run(tmp_path / name, "run", compute=compute)
        assert (counters["stats"]["unique_graphs"] > 0) == (name == "compiled"), counters
    assert counters["stats"]["calls_captured"] > 50
    for figure in ("loss", "gradient_norm", "validation/loss"):
        eager, compiled = curve(folders["eager"], figure), curve(folders["compiled"], figure)
        assert len(eager) >= 1
        torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-5)
