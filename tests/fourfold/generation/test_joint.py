"""Grids in one pass of the decoder: the tokens of separate passes, in fewer calls."""

import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from test_decoding import CONFIG, SPECIAL, WARM

from fourfold.generation.conditions import MISSING
from fourfold.generation.config import PRESETS, GenerationConfig
from fourfold.generation.decoding import generate_tokens
from fourfold.model.fourm import FourM

TARGETS = ["tok_depth", "caption", "tok_semseg"]
SEEDS = (7, 8, 9, 10, 11)


class Counted(FourM):
    """Counts the passes."""

    def encode(self, batch):
        self.calls["encode"] += 1
        return super().encode(batch)

    def decode(self, batch, encoding):
        self.calls["decode"] += 1
        return super().decode(batch, encoding)


@pytest.fixture
def model() -> Counted:
    model = Counted(CONFIG, seed=1).eval()
    model.calls = Counter()
    return model


@pytest.fixture
def conditions() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    depth = torch.randint(11, (5, 4), generator=generator)
    for row, unknown in enumerate([4, 1, 0, 1, 3]):
        depth[row, :unknown] = MISSING
    return {"rgb": torch.randint(256, (5, 8, 8, 3), generator=generator).to(torch.uint8), "tok_depth": depth}


def both(model, conditions, config, targets=TARGETS, **options):
    """Return the answers of separate passes and of a common one."""
    apart = config.model_copy(update={"together": False})
    joint = config.model_copy(update={"together": True})
    return [generate_tokens(model, conditions, targets, SEEDS, each, SPECIAL, **options) for each in (apart, joint)]


@pytest.mark.parametrize("config", [PRESETS["one_pass"], GenerationConfig(grids=WARM, sequences=WARM)])
@pytest.mark.parametrize("is_partly_given", [True, False])
def test_tokens_are_those_of_separate_passes(model, conditions, config, is_partly_given):
    known = conditions if is_partly_given else {"rgb": conditions["rgb"]}
    if is_partly_given:  # separate passes answer samples that lack different amounts separately
        known = {name: value[[1, 3]].repeat(3, *[1] * (value.ndim - 1))[:5] for name, value in known.items()}
    apart, joint = both(model, known, config)
    for name in TARGETS:
        assert torch.equal(apart[name], joint[name])


def test_samples_may_lack_different_numbers_of_tokens(model, conditions):
    apart, joint = both(model, conditions, PRESETS["one_pass"], ["tok_semseg", "tok_depth"])
    given = conditions["tok_depth"] != MISSING
    assert torch.equal(joint["tok_depth"][given], conditions["tok_depth"][given]) and (joint["tok_depth"] >= 0).all()
    assert torch.equal(apart["tok_depth"], joint["tok_depth"]) and torch.equal(apart["tok_semseg"], joint["tok_semseg"])


def test_encoder_and_decoder_run_once(model, conditions):
    rgb = {"rgb": conditions["rgb"]}
    generate_tokens(model, rgb, ["tok_depth", "tok_semseg"], SEEDS, PRESETS["one_pass"], SPECIAL)
    assert model.calls == {"encode": 1, "decode": 1}
    model.calls.clear()
    generate_tokens(model, conditions, TARGETS, SEEDS, PRESETS["one_pass"], SPECIAL)  # the text shares the encoding
    assert model.calls == {"encode": 1, "decode": 1}
    model.calls.clear()
    generate_tokens(model, rgb, ["tok_depth", "tok_semseg"], SEEDS, PRESETS["greedy"], SPECIAL)
    assert model.calls == {"encode": 1, "decode": 2}


@pytest.mark.parametrize(("changes", "passes"), [({"chain": True}, 2), ({"via": {"tok_semseg": ("tok_depth",)}}, 3)])
def test_targets_that_need_each_other_are_predicted_in_turn(model, conditions, changes, passes):
    apart, joint = both(model, {"rgb": conditions["rgb"]}, GenerationConfig(**changes), ["tok_depth", "tok_semseg"])
    assert all(torch.equal(apart[name], joint[name]) for name in apart)
    assert model.calls["decode"] == 2 * passes


def test_grids_of_several_steps_guidance_and_weights_are_as_without(model, conditions):
    for config, weights in (
        (GenerationConfig(special={"tok_depth": WARM.model_copy(update={"steps": 3})}), None),
        (GenerationConfig(special={"tok_depth": WARM.model_copy(update={"guidance": 2.0})}), None),
        (GenerationConfig(), {"rgb": 2.0}),
    ):
        apart, joint = both(model, {"rgb": conditions["rgb"]}, config, weights=weights)
        assert all(torch.equal(apart[name], joint[name]) for name in TARGETS)


@pytest.mark.parametrize("changes", [{"separate_targets": False}, {"causal_targets": True}])
def test_models_whose_targets_see_each_other_predict_them_in_turn(conditions, changes):
    model = Counted(CONFIG.model_copy(update=changes), seed=1).eval()
    model.calls = Counter()
    apart, joint = both(model, {"rgb": conditions["rgb"]}, PRESETS["one_pass"], ["tok_depth", "tok_semseg"])
    assert all(torch.equal(apart[name], joint[name]) for name in apart) and model.calls["decode"] == 4


def test_given_grids_need_no_pass(model, conditions):
    known = {"tok_depth": conditions["tok_depth"].clamp(min=0)}
    found = generate_tokens(model, known, ["tok_depth"], SEEDS, PRESETS["one_pass"], SPECIAL)["tok_depth"]
    assert torch.equal(found, known["tok_depth"])
