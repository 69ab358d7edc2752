"""Pretraining on a mixture of data sets resumes exactly after an interruption."""

import sys
from pathlib import Path

import pytest

from fourfold.masking.config import MaskingConfig, MixtureComponent
from fourfold.pretraining import pretrain as module
from fourfold.pretraining.config import DatasetConfig
from fourfold.training import loop
from fourfold.training.run_context import RunContext

sys.path.insert(0, str(Path(__file__).parent))
from tiny_world import TinyTokenizers, tiny_config, write_world

pytestmark = pytest.mark.numeric
SMALL = MaskingConfig(
    components=(MixtureComponent(alpha_in={"tok_depth": 1.0}, alpha_target={"caption": 1.0, "tok_depth": 1.0}),),
    input_tokens=4,
    target_tokens=6,
)
MIXTURE = {
    "all": DatasetConfig(weight=0.6),
    "some": DatasetConfig(weight=0.4, modalities=("tok_depth", "caption"), masking=SMALL),
}


def test_an_interrupted_run_on_a_mixture_ends_with_equal_weights(tmp_path, monkeypatch):
    world = write_world(tmp_path / "world")
    config = tiny_config(datasets=MIXTURE, total_tokens=12 * 3 * 18)
    whole = module.pretrain(*world, TinyTokenizers(), config, RunContext(0, tmp_path / "whole"))

    def interrupted(schedule, step, num_steps):
        if step == 8:
            raise KeyboardInterrupt
        return original(schedule, step, num_steps)

    original = loop.lr_multiplier
    monkeypatch.setattr(loop, "lr_multiplier", interrupted)
    with pytest.raises(KeyboardInterrupt):
        module.pretrain(*world, TinyTokenizers(), config, RunContext(0, tmp_path / "broken"))
    monkeypatch.setattr(loop, "lr_multiplier", original)
    broken = module.pretrain(*world, TinyTokenizers(), config, RunContext(0, tmp_path / "broken"))
    plain = module.pretrain(*world, TinyTokenizers(), tiny_config(total_tokens=12 * 3 * 18), RunContext(0, tmp_path / "plain"))
    weights = [(folder / "last/model.safetensors").read_bytes() for folder in (whole, broken, plain)]
    assert weights[0] == weights[1] != weights[2]
