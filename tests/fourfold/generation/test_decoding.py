"""Properties of generation that hold for any weights."""

import pytest
import torch

from fourfold.generation.conditions import UNKNOWN
from fourfold.generation.config import GenerationConfig, TargetConfig
from fourfold.generation.decoding import SpecialIds, append_end, generate_tokens
from fourfold.generation.sampling import draw, keep_top, sample, sample_with_confidence
from fourfold.generation.schedules import token_schedule
from fourfold.model.batch import MaskedBatch
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.fourm import FourM

SPECIAL = SpecialIds(end=3, sentinels=(4, 5, 6))
CONFIG = ModelConfig(
    modalities=(
        ModalityConfig(name="rgb", kind="pixels", grid=(2, 2)),
        ModalityConfig(name="tok_depth", kind="grid", vocabulary_size=11, grid=(2, 2)),
        ModalityConfig(name="tok_semseg", kind="grid", vocabulary_size=7, grid=(2, 2)),
        ModalityConfig(name="caption", kind="sequence", vocabulary_size=40, max_length=12),
    ),
    dim=32, encoder_depth=2, decoder_depth=2, num_heads=2, patch_size=4, embedding_std=0.7,
)  # fmt: skip
WARM = TargetConfig(temperature=1.0, top_p=0.95)
SAMPLED = GenerationConfig(grids=WARM.model_copy(update={"steps": 3, "order": "maskgit"}), sequences=WARM)


@pytest.fixture(scope="module")
def model() -> FourM:
    return FourM(CONFIG, seed=1).eval()


@pytest.fixture
def conditions() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    captions = torch.randint(7, 40, (5, 6), generator=generator)
    captions[0, 2:] = 0
    captions[3, 4:] = 0
    return {"rgb": torch.randint(256, (5, 8, 8, 3), generator=generator).to(torch.uint8), "caption": captions}


def some(conditions: dict[str, torch.Tensor], rows: list[int]) -> dict[str, torch.Tensor]:
    return {name: value[rows] for name, value in conditions.items()}


def test_decoding_with_caches_gives_what_recomputing_the_whole_prefix_gives(model, conditions):
    rgb = {"rgb": conditions["rgb"]}
    found = generate_tokens(model, rgb, ["caption"], range(5), GenerationConfig(), SpecialIds(end=39, sentinels=(38, 37)))[
        "caption"
    ]
    length = found.shape[1]
    assert length > 2
    position = torch.arange(4).expand(5, 4)
    inputs = (torch.zeros_like(position), position, torch.zeros_like(position))
    previous = torch.cat([torch.full((5, 1), 37), found[:, :-1]], dim=1)
    targets = (torch.full_like(previous, 3), torch.arange(length).expand(5, length), previous, previous)
    batch = MaskedBatch(*inputs, *targets, conditions["rgb"])
    with torch.no_grad():
        expected = model.logits(model.decode(batch, model.encode(batch)), "caption").argmax(-1)
    written = found > 0
    torch.testing.assert_close(found[written], expected[written])


@pytest.mark.parametrize("config", [GenerationConfig(), SAMPLED, SAMPLED.model_copy(update={"chain": True})])
def test_a_batch_gives_what_single_calls_give(model, conditions, config):
    targets, seeds = ["tok_depth", "caption", "tok_semseg"], [7, 8, 9, 10, 11]
    together = generate_tokens(model, conditions, targets, seeds, config, SPECIAL)
    for row in range(5):
        alone = generate_tokens(model, some(conditions, [row]), targets, [seeds[row]], config, SPECIAL)
        for name in targets:
            width = alone[name].shape[1]
            assert together[name][row, :width].tolist() == alone[name][0].tolist()
            assert not together[name][row, width:].any()


def test_a_sample_follows_its_seed_wherever_it_stands_in_the_batch(model, conditions):
    order = [3, 0, 4, 2, 1]
    straight = generate_tokens(model, conditions, ["tok_depth"], [0, 1, 2, 3, 4], SAMPLED, SPECIAL)["tok_depth"]
    shuffled = generate_tokens(model, some(conditions, order), ["tok_depth"], order, SAMPLED, SPECIAL)["tok_depth"]
    torch.testing.assert_close(straight[order], shuffled)
    other = generate_tokens(model, conditions, ["tok_depth"], [5, 6, 7, 8, 9], SAMPLED, SPECIAL)["tok_depth"]
    assert (other != straight).any()


def test_given_tokens_stay_and_the_rest_is_filled(model, conditions):
    given = torch.full((5, 4), UNKNOWN)
    given[:, 1] = 6
    for config in (GenerationConfig(), SAMPLED):
        found = generate_tokens(model, {"tok_depth": given}, ["tok_depth"], range(5), config, SPECIAL)["tok_depth"]
        assert (found[:, 1] == 6).all()
        assert (found >= 0).all()
        assert (found < 11).all()


def test_targets_that_are_not_chained_do_not_influence_each_other(model, conditions):
    both = generate_tokens(model, conditions, ["tok_depth", "tok_semseg"], range(5), SAMPLED, SPECIAL)
    one = generate_tokens(model, conditions, ["tok_semseg"], range(5), SAMPLED, SPECIAL)
    torch.testing.assert_close(both["tok_semseg"], one["tok_semseg"])


def test_guidance_of_one_is_no_guidance_and_no_condition_at_all_works(model, conditions):
    plain = generate_tokens(model, conditions, ["tok_depth"], range(5), GenerationConfig(), SPECIAL)
    weighted = generate_tokens(
        model, {"rgb": conditions["rgb"]}, ["tok_depth"], range(5), GenerationConfig(), SPECIAL, {"rgb": 1.0}
    )
    alone = generate_tokens(model, {"rgb": conditions["rgb"]}, ["tok_depth"], range(5), GenerationConfig(), SPECIAL)
    torch.testing.assert_close(weighted["tok_depth"], alone["tok_depth"])
    assert plain["tok_depth"].shape == (5, 4)
    assert generate_tokens(model, {}, ["tok_depth"], range(2), GenerationConfig(), SPECIAL)["tok_depth"].shape == (2, 4)


def test_conditions_that_do_not_fit_are_refused_with_what_is_expected(model, conditions):
    with pytest.raises(ValueError, match=r"tok_depth.*expected tokens of shape \(5, 4\)"):
        generate_tokens(model, {"tok_depth": torch.zeros(5, 9).long()}, ["caption"], range(5), GenerationConfig(), SPECIAL)
    with pytest.raises(ValueError, match="Did you mean 'tok_depth'"):
        generate_tokens(model, conditions, ["tok_dpeth"], range(5), GenerationConfig(), SPECIAL)
    with pytest.raises(ValueError, match="input only"):
        generate_tokens(model, conditions, ["rgb"], range(5), GenerationConfig(), SPECIAL)


def test_the_end_stands_after_the_last_token():
    assert append_end(torch.tensor([[7, 8, 0], [0, 0, 0], [7, 8, 9]]), 3).tolist() == [[7, 8, 3, 0], [3, 0, 0, 0], [7, 8, 9, 3]]


@pytest.mark.parametrize("name", ["cosine", "linear"])
@pytest.mark.parametrize(("tokens", "steps"), [(1, 1), (64, 3), (64, 64), (5, 9), (196, 12)])
def test_schedules_fix_every_token_once(name, tokens, steps):
    schedule = token_schedule(tokens, steps, name)
    assert sum(schedule) == tokens
    assert min(schedule) >= 0


def test_draws_follow_the_probabilities_and_never_take_what_is_impossible():
    probabilities = torch.tensor([0.0, 0.2, 0.0, 0.5, 0.3, 0.0]).expand(20_000, 6)
    uniform = (torch.arange(20_000) + 0.5) / 20_000
    share = draw(probabilities, uniform).bincount(minlength=6) / 20_000
    torch.testing.assert_close(share, probabilities[0], atol=1e-3, rtol=0)
    edges = draw(probabilities[:2], torch.tensor([0.0, 1 - 1e-9]))
    assert edges.tolist() == [1, 4]
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    ids, confidence = sample_with_confidence(logits, torch.tensor([0.5]), temperature=0.0)
    assert ids.tolist() == sample(logits, torch.tensor([0.5])).tolist() == [1]
    torch.testing.assert_close(confidence, logits.softmax(-1)[:, 1])  # 1 would rank nothing
