"""Generation against deterministic runs of the reference (tests/reference, generation_greedy)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fourfold.generation import sampling
from fourfold.generation.config import GenerationConfig, TargetConfig
from fourfold.generation.decoding import SpecialTokenIds, generate_tokens
from fourfold.generation.grids import remaining_schedule, temperatures, token_schedule
from fourfold.generation.sampling import keep_top
from fourfold.model.fourm import FourM
from fourfold.model.released.checkpoint import load_released

REFERENCE = Path(__file__).parents[2] / "reference"
DEPTH, CLIP, SEMSEG, RGB = "tok_depth@224", "tok_clip@224", "tok_semseg@224", "tok_rgb@224"


@pytest.fixture(scope="module")
def model() -> FourM:
    return load_released(REFERENCE / "fourm_tiny.safetensors")


@pytest.fixture(scope="module")
def runs() -> dict:
    return json.loads((REFERENCE / "generation_greedy.json").read_text())


@pytest.fixture(scope="module")
def inputs() -> dict[str, torch.Tensor]:
    with np.load(REFERENCE / "generation_greedy.npz") as file:
        found = {name.removeprefix("inputs/"): torch.tensor(file[name]) for name in file.files if name.startswith("inputs/")}
    return found | {"rgb@224": found.pop("rgb").permute(0, 2, 3, 1)}


def answer(model, conditions, targets, settings=None, stop=6, weights=None, **changes):
    settings = settings or TargetConfig()
    config = GenerationConfig(grids=settings, sequences=settings, show_sentinel=True, **changes)
    batch = len(next(iter(conditions.values())))
    special = SpecialTokenIds(end=stop, sentinels=(4, 5))
    return {
        k: v.tolist() for k, v in generate_tokens(model, conditions, targets, range(batch), config, special, weights).items()
    }


@pytest.mark.parametrize("order", ["maskgit", "roar"])
def test_one_step_gives_the_reference_tokens(model, runs, inputs, order):
    found = answer(model, {"rgb@224": inputs["rgb@224"]}, [DEPTH], TargetConfig(order=order))
    assert found[DEPTH] == runs["runs"][f"a_{order}1"]["tokens"]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_maskgit_in_four_steps_gives_the_reference_tokens(model, runs, inputs, monkeypatch, temperature):
    monkeypatch.setattr(sampling, "draw", lambda probabilities, uniform: probabilities.argmax(-1))
    settings = TargetConfig(order="maskgit", steps=4, schedule="cosine", temperature=temperature)
    assert answer(model, {"rgb@224": inputs["rgb@224"]}, [DEPTH], settings)[DEPTH] == runs["runs"]["b_maskgit4"]["tokens"]


class Recorder:
    """Record each pass of generation: the visible tokens, the positions asked for, and their logits."""

    def __init__(self, model, monkeypatch):
        self.visible, self.places, self.logits = [], [], []
        encode, decode, logits = model.encode, model.decode, model.logits

        def record_encode(batch):
            self.visible.append(batch)
            return encode(batch)

        def record_decode(batch, encoding):
            self.places.append(batch.target_position_BM)
            return decode(batch, encoding)

        def record_logits(hidden, name):
            self.logits.append(logits(hidden, name))
            return self.logits[-1]

        for name, record in (("encode", record_encode), ("decode", record_decode), ("logits", record_logits)):
            monkeypatch.setattr(model, name, record)

    def of_grid(self, call):
        """Return the logits of one pass, sorted by position."""
        order = self.places[call].argsort(dim=1)
        return self.logits[call].gather(1, order[..., None].expand_as(self.logits[call]))


@pytest.fixture
def recorder(model, monkeypatch):
    return Recorder(model, monkeypatch)


@pytest.fixture(scope="module")
def golden():
    with np.load(REFERENCE / "generation_greedy.npz") as file:
        return {name: torch.tensor(file[name]) for name in file.files}


def assert_logits(found, expected):
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("run", ["a_maskgit1", "a_roar1", "b_maskgit4", "b_roar4"])
def test_every_step_has_the_inputs_and_outputs_of_the_reference(model, runs, inputs, golden, recorder, monkeypatch, run):
    maskgit, steps = "maskgit" in run, int(run[-1])
    if not maskgit and steps > 1:
        order = [place for step in runs["runs"][run]["order_per_step"] for place in step[0]]
        monkeypatch.setattr(torch, "randperm", lambda length, generator: torch.tensor(order))
    settings = TargetConfig(order="maskgit" if maskgit else "roar", steps=steps, schedule="cosine" if maskgit else "linear")
    answer(model, {"rgb@224": inputs["rgb@224"]}, [DEPTH], settings)
    assert len(recorder.logits) == steps
    for step in range(steps):
        assert_logits(recorder.of_grid(step), golden[f"{run}/step{step}/logits"])
        torch.testing.assert_close(recorder.places[step].sort(dim=1).values, golden[f"{run}/step{step}/pos"])
        batch, index = recorder.visible[step], model.config.index(DEPTH)
        for sample in range(2):
            mine = batch.input_modality_BN[sample] == index
            known = golden[f"{run}/step{step}/visible_before"][sample]
            assert batch.input_position_BN[sample][mine].tolist() == known.nonzero()[:, 0].tolist()
            assert (
                batch.input_token_BN[sample][mine].tolist() == golden[f"{run}/step{step}/tensor_before"][sample][known].tolist()
            )


@pytest.mark.parametrize(("run", "guidance"), [("c_greedy", 1.0), ("c_guided", 2.0)])
def test_cached_text_has_the_logits_of_the_uncached_reference(model, inputs, golden, recorder, run, guidance):
    answer(model, {RGB: inputs[RGB]}, ["caption"], TargetConfig(max_tokens=11, guidance=guidance))
    names = ["logits"] if guidance == 1 else ["logits_cond", "logits_uncond"]
    for branch, name in enumerate(names):
        assert_logits(torch.stack(recorder.logits[branch :: len(names)], dim=1), golden[f"{run}/{name}"])


def test_guided_chained_and_weighted_logits_match_the_reference(model, inputs, golden, recorder):
    answer(model, {"caption": inputs["caption"]}, [CLIP], TargetConfig(guidance=2.0))
    answer(model, {"rgb@224": inputs["rgb@224"]}, [CLIP, DEPTH], TargetConfig(guidance=2.0), chain=True)
    conditions = {"caption": inputs["caption"], SEMSEG: inputs[SEMSEG]}
    answer(model, conditions, [DEPTH], weights={"caption": 2.0, SEMSEG: 1.0})
    expected = [f"d_cfg/step0/{branch}/logits" for branch in ("cond", "uncond")]
    expected += [f"e_chain/{target}/logits_{branch}" for target in (CLIP, DEPTH) for branch in ("cond", "uncond")]
    expected += [f"f_weighted/logits_{branch}" for branch in ("cond0", "cond1", "uncond")]
    assert len(recorder.logits) == len(expected)
    for call, name in enumerate(expected):
        assert_logits(recorder.of_grid(call), golden[name])


def test_roar_in_four_steps_gives_the_reference_tokens(model, runs, inputs, monkeypatch):
    run = runs["runs"]["b_roar4"]
    order = [place for step in run["order_per_step"] for place in step[0]]
    monkeypatch.setattr(torch, "randperm", lambda length, generator: torch.tensor(order))
    assert answer(model, {"rgb@224": inputs["rgb@224"]}, [DEPTH], TargetConfig(steps=4))[DEPTH] == run["tokens"]


@pytest.mark.parametrize(("run", "guidance"), [("c_greedy", 1.0), ("c_guided", 2.0)])
def test_cached_text_matches_the_uncached_reference(model, runs, inputs, run, guidance):
    settings = TargetConfig(max_tokens=11, guidance=guidance)
    assert answer(model, {RGB: inputs[RGB]}, ["caption"], settings)["caption"] == runs["runs"][run]["merged_ids"]


def test_text_ends_before_the_stop_id(model, runs, inputs):
    found = answer(model, {RGB: inputs[RGB][:1]}, ["caption"], TargetConfig(max_tokens=11), stop=272)
    assert found["caption"][0] == runs["runs"]["c_stop"]["merged_ids"][0][:-1]


def test_guidance_away_from_an_empty_text_gives_the_reference_tokens(model, runs, inputs):
    found = answer(model, {"caption": inputs["caption"]}, [CLIP], TargetConfig(guidance=2.0))
    assert found[CLIP] == runs["runs"]["d_cfg"]["tokens"]


def test_a_chained_target_becomes_a_guided_condition_of_the_next(model, runs, inputs):
    found = answer(model, {"rgb@224": inputs["rgb@224"]}, [CLIP, DEPTH], TargetConfig(guidance=2.0), chain=True)
    assert found == runs["runs"]["e_chain"]["tokens"]


def test_weighted_conditions_give_the_reference_tokens(model, runs, inputs):
    conditions = {"caption": inputs["caption"], SEMSEG: inputs[SEMSEG]}
    found = answer(model, conditions, [DEPTH], weights={"caption": 2.0, SEMSEG: 1.0})
    assert found[DEPTH] == runs["runs"]["f_weighted"]["tokens"]


def test_schedules_match_the_reference(runs):
    schedules = runs["schedules"]
    for name in ("cosine", "linear"):
        for case in schedules[name]:
            assert token_schedule(case["tokens"], case["steps"], name) == case["schedule"]
    for case in schedules["temperature_linear"]:
        assert temperatures(case["temp"], case["schedule"], "linear") == pytest.approx(case["temps"])
    for case in schedules["temperature_onex"]:
        found = temperatures(case["max"], case["schedule"], "onex", case["min"], case["power"])
        assert found == pytest.approx(case["temps"])
    for case in schedules["continue"]:
        assert remaining_schedule(case["schedule"], case["already"]) == case["rest"]


@pytest.mark.parametrize(
    ("name", "top_k", "top_p"),
    [
        ("top_k_int_5", 5, 1.0),
        ("top_k_float_0.25", 6, 1.0),
        ("top_p_0.8", 0, 0.8),
        ("top_k_5_top_p_0.8", 5, 0.8),
        ("top_p_0.05", 0, 0.05),
    ],
)
def test_filters_match_the_reference(name, top_k, top_p):
    with np.load(REFERENCE / "generation_greedy.npz") as file:
        kept = keep_top(torch.tensor(file["filters/logits"]), top_k, top_p) > -torch.inf
        np.testing.assert_array_equal(kept, file[f"filters/{name}/kept"])
