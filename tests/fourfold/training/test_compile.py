"""`place.compile`: the blocks really are compiled, and a run learns what it learns without."""

import sys
from pathlib import Path

import pytest
import torch

from fourfold.storage import read_json
from fourfold.training.pretrain import pretrain
from fourfold.training.pretrain_config import PlaceConfig

sys.path.insert(0, str(Path(__file__).parent))
from tiny_world import TinyTokenizers, tiny_config, write_world


def curve(folder: Path, name: str) -> torch.Tensor:
    return torch.tensor([figures[name] for figures in read_json(folder / "history.json") if name in figures])


@pytest.mark.slow
def test_a_compiled_run_gives_the_losses_and_gradients_of_an_eager_one(tmp_path):
    from torch._dynamo.utils import counters

    world, steps = write_world(tmp_path / "world"), 6
    counters.clear()
    for name, place in (("eager", PlaceConfig()), ("compiled", PlaceConfig(compile=True))):
        changes = {"total_tokens": steps * 3 * 18, "log_every": 1, "precision": "fp32", "validate_every": steps}
        pretrain(*world, TinyTokenizers(), tiny_config(place=place, **changes), 7, tmp_path / name)
        compiled = counters["stats"]["unique_graphs"], counters["inductor"]
        assert bool(compiled[0]) == (name == "compiled"), counters
    assert counters["stats"]["calls_captured"] > 50 and not counters["graph_break"], counters["graph_break"]
    for figure in ("loss", "gradient_norm", "validation/loss"):
        eager, found = curve(tmp_path / "eager", figure), curve(tmp_path / "compiled", figure)
        assert len(eager) >= 1
        torch.testing.assert_close(found, eager, rtol=1e-4, atol=1e-5)
