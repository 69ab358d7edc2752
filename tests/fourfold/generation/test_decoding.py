"""Properties of generation that hold for any weights."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.generation.conditions import MISSING, visible_batch, with_targets
from fourfold.generation.config import GenerationConfig, TargetConfig
from fourfold.generation.decoding import SpecialTokenIds, append_end, generate_tokens
from fourfold.generation.grids import temperatures, token_schedule
from fourfold.generation.sampling import draw, keep_top, sample, sample_with_confidence
from fourfold.masking import spans
from fourfold.masking.spans import merge_spans
from fourfold.model.batch import MaskedBatch
from fourfold.model.config import ModalityConfig, ModelConfig
from fourfold.model.fourm import FourM

SPECIAL = SpecialTokenIds(end=3, sentinels=(4, 5, 6))
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


VARIANTS = [
    {},
    {"qk_norm": True, "norm_bias": True},
    {"num_registers": 2, "attention": "sdpa"},
    {"gated_mlp": False, "qkv_bias": True, "mlp_bias": True, "projection_bias": True},
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_cached_decoding_equals_recomputing_the_prefix(conditions, changes):
    model = FourM(CONFIG.model_copy(update=changes), seed=1).eval()
    rgb = {"rgb": conditions["rgb"]}
    found = generate_tokens(model, rgb, ["caption"], range(5), GenerationConfig(), SpecialTokenIds(end=39, sentinels=(38, 37)))[
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
def test_batch_equals_single_calls(model, conditions, config):
    targets, seeds = ["tok_depth", "caption", "tok_semseg"], [7, 8, 9, 10, 11]
    together = generate_tokens(model, conditions, targets, seeds, config, SPECIAL)
    for row in range(5):
        alone = generate_tokens(model, some(conditions, [row]), targets, [seeds[row]], config, SPECIAL)
        for name in targets:
            width = alone[name].shape[1]
            assert together[name][row, :width].tolist() == alone[name][0].tolist()
            assert not together[name][row, width:].any()


def test_sample_depends_on_its_seed_not_on_its_row(model, conditions):
    order = [3, 0, 4, 2, 1]
    straight = generate_tokens(model, conditions, ["tok_depth"], [0, 1, 2, 3, 4], SAMPLED, SPECIAL)["tok_depth"]
    shuffled = generate_tokens(model, some(conditions, order), ["tok_depth"], order, SAMPLED, SPECIAL)["tok_depth"]
    torch.testing.assert_close(straight[order], shuffled)
    other = generate_tokens(model, conditions, ["tok_depth"], [5, 6, 7, 8, 9], SAMPLED, SPECIAL)["tok_depth"]
    assert (other != straight).any()


def test_given_tokens_are_kept_and_the_rest_filled(model, conditions):
    known = torch.full((5, 4), MISSING)
    known[:, 1] = 6
    for config in (GenerationConfig(), SAMPLED):
        found = generate_tokens(model, {"tok_depth": known}, ["tok_depth"], range(5), config, SPECIAL)["tok_depth"]
        assert (found[:, 1] == 6).all()
        assert (found >= 0).all()
        assert (found < 11).all()


def test_samples_lacking_different_amounts_equal_single_calls(model, conditions):
    depth = torch.randint(11, (5, 4), generator=torch.Generator().manual_seed(3))
    for row, unknown in enumerate([4, 1, 0, 1, 3]):
        depth[row, :unknown] = MISSING
    given = {"rgb": conditions["rgb"], "tok_depth": depth}
    found = generate_tokens(model, given, ["tok_depth"], range(5), SAMPLED, SPECIAL)["tok_depth"]
    known = depth != MISSING
    assert (found[known] == depth[known]).all() and (found >= 0).all()
    for row in range(5):
        alone = generate_tokens(model, some(given, [row]), ["tok_depth"], [row], SAMPLED, SPECIAL)["tok_depth"]
        assert alone[0].tolist() == found[row].tolist()


@pytest.mark.parametrize("guided", [1.0, 2.5])
def test_samples_with_different_conditions_equal_single_calls(model, conditions, guided):
    warm = WARM.model_copy(update={"guidance": guided})
    config = GenerationConfig(grids=warm.model_copy(update={"steps": 2}), sequences=warm)
    rgb, caption = conditions["rgb"].short(), conditions["caption"].clone()
    rgb[[1, 4]], caption[[0, 4]] = MISSING, 0
    mixed = {"rgb": rgb, "caption": caption}
    targets = ["tok_depth", "tok_semseg"]
    together = generate_tokens(model, mixed, targets, range(5), config, SPECIAL)
    for row, names in enumerate([["rgb"], ["caption"], ["rgb", "caption"], ["rgb", "caption"], []]):
        own = {name: conditions[name][[row]] for name in names}
        alone = generate_tokens(model, own, targets, [row], config, SPECIAL)
        for name in targets:
            assert together[name][row].tolist() == alone[name][0].tolist()


def test_missing_patches_are_not_visible(model, conditions):
    changed = conditions["rgb"].short()
    changed[:, :4, 4:] = MISSING
    batch = visible_batch({"rgb": changed}, CONFIG, 5, torch.device("cpu"))
    assert batch.input_position_BN.tolist() == [[0, 2, 3]] * 5
    whole = model.encode(visible_batch({"rgb": conditions["rgb"]}, CONFIG, 5, torch.device("cpu")))
    short = model.encode(visible_batch({"rgb": conditions["rgb"].short()}, CONFIG, 5, torch.device("cpu")))
    torch.testing.assert_close(whole.features_TD, short.features_TD)


def test_gaps_are_filled_like_in_one_pass_over_the_text(model, conditions):
    """Check by teacher forcing: each token in a gap is the most probable one after the tokens before it."""
    given = torch.tensor([[7, 5, 9, 10, 6, 3, 0], [5, 8, 3, 0, 0, 0, 0], [7, 8, 9, 10, 11, 12, 3]])
    known = {"rgb": conditions["rgb"][:3], "caption": given}
    special = SpecialTokenIds(end=3, sentinels=(4, 5, 6, 38))
    config = GenerationConfig(sequences=TargetConfig(max_tokens=5))
    found = generate_tokens(model, known, ["caption"], range(3), config, special)["caption"]
    assert found[2].tolist()[:6] == [7, 8, 9, 10, 11, 12]
    index = CONFIG.index("caption")
    for row, stop in ((0, 38), (1, 6)):
        batch = visible_batch(some(known, [row]), CONFIG, 1, torch.device("cpu"))
        target = [5]
        while len(target) < 6:
            slots = torch.tensor([target])
            asked = dataclasses.replace(
                batch,
                target_modality_BM=torch.full_like(slots, index),
                target_position_BM=torch.arange(len(target))[None],
                target_input_BM=slots,
                target_id_BM=slots,
            )
            with torch.no_grad():
                token = int(model.logits(model.decode(asked, model.encode(asked)), "caption")[0, -1].argmax())
            if token == stop:
                break
            target.append(token)
        merged = merge_spans(given[row].tolist(), target, spans.SentinelIds(3, (5, 6, 38)))
        expected = [token for token in merged if token]
        assert found[row, found[row] > 0].tolist() == expected[: expected.index(3)]


def test_more_gaps_than_sentinels_raise(model):
    with pytest.raises(ValueError, match="2 gaps; allowed: up to 1"):
        generate_tokens(model, {"caption": torch.tensor([[5, 7, 6, 3]])}, ["caption"], [0], GenerationConfig(), SPECIAL)


def test_weights_follow_the_formula(model, conditions):
    """Compute u + Σ w (c − u) pass by pass."""
    weights = {"rgb": 1.7, "caption": -0.6}
    found = generate_tokens(model, conditions, ["tok_depth"], range(5), GenerationConfig(), SPECIAL, weights)["tok_depth"]
    places = torch.arange(4).expand(5, -1)

    def logits(known):
        batch = with_targets(visible_batch(known, CONFIG, 5, torch.device("cpu")), CONFIG.index("tok_depth"), places)
        with torch.no_grad():
            return model.logits(model.decode(batch, model.encode(batch)), "tok_depth")

    nothing = logits({})
    total = nothing + sum(weight * (logits({name: conditions[name]}) - nothing) for name, weight in weights.items())
    torch.testing.assert_close(found, total.argmax(-1))
    plain = generate_tokens(model, conditions, ["tok_depth"], range(5), GenerationConfig(), SPECIAL)["tok_depth"]
    assert (found != plain).any()
    with pytest.raises(ValueError, match=r"Weights name tok_semseg; allowed: the conditions caption, rgb, tok_depth"):
        generate_tokens(model, conditions, ["tok_depth"], range(5), GenerationConfig(), SPECIAL, {"tok_semseg": 2.0})


def test_via_equals_an_explicit_chain(model, conditions):
    config = SAMPLED.model_copy(update={"via": {"tok_depth": ("tok_semseg",)}})
    found = generate_tokens(model, conditions, ["tok_depth"], range(5), config, SPECIAL)
    chained = SAMPLED.model_copy(update={"chain": True})
    expected = generate_tokens(model, conditions, ["tok_semseg", "tok_depth"], range(5), chained, SPECIAL)
    assert list(found) == ["tok_depth"]
    torch.testing.assert_close(found["tok_depth"], expected["tok_depth"])
    given = conditions | {"tok_semseg": expected["tok_semseg"]}
    torch.testing.assert_close(
        generate_tokens(model, given, ["tok_depth"], range(5), config, SPECIAL)["tok_depth"], found["tok_depth"]
    )


def test_unchained_targets_are_independent(model, conditions):
    both = generate_tokens(model, conditions, ["tok_depth", "tok_semseg"], range(5), SAMPLED, SPECIAL)
    one = generate_tokens(model, conditions, ["tok_semseg"], range(5), SAMPLED, SPECIAL)
    torch.testing.assert_close(both["tok_semseg"], one["tok_semseg"])


def test_guidance_one_is_none_and_no_condition_works(model, conditions):
    plain = generate_tokens(model, conditions, ["tok_depth"], range(5), GenerationConfig(), SPECIAL)
    weighted = generate_tokens(
        model, {"rgb": conditions["rgb"]}, ["tok_depth"], range(5), GenerationConfig(), SPECIAL, {"rgb": 1.0}
    )
    alone = generate_tokens(model, {"rgb": conditions["rgb"]}, ["tok_depth"], range(5), GenerationConfig(), SPECIAL)
    torch.testing.assert_close(weighted["tok_depth"], alone["tok_depth"])
    assert plain["tok_depth"].shape == (5, 4)
    assert generate_tokens(model, {}, ["tok_depth"], range(2), GenerationConfig(), SPECIAL)["tok_depth"].shape == (2, 4)


def test_wrong_conditions_raise_with_the_expected_shape(model, conditions):
    with pytest.raises(ValueError, match=r"tok_depth.*expected tokens of shape \(5, 4\)"):
        generate_tokens(model, {"tok_depth": torch.zeros(5, 9).long()}, ["caption"], range(5), GenerationConfig(), SPECIAL)
    with pytest.raises(ValueError, match="Did you mean 'tok_depth'"):
        generate_tokens(model, conditions, ["tok_dpeth"], range(5), GenerationConfig(), SPECIAL)
    with pytest.raises(ValueError, match="input only"):
        generate_tokens(model, conditions, ["rgb"], range(5), GenerationConfig(), SPECIAL)


def test_end_follows_the_last_token():
    assert append_end(torch.tensor([[7, 8, 0], [0, 0, 0], [7, 8, 9]]), 3).tolist() == [[7, 8, 3, 0], [3, 0, 0, 0], [7, 8, 9, 3]]


@pytest.mark.parametrize("name", ["cosine", "linear"])
@pytest.mark.parametrize(("tokens", "steps"), [(1, 1), (64, 3), (64, 64), (5, 9), (196, 12)])
def test_schedules_fix_every_token_once(name, tokens, steps):
    assert all(t >= 0 for t in temperatures(6.0, token_schedule(tokens, steps, name), "onex", 0.5))
    schedule = token_schedule(tokens, steps, name)
    assert sum(schedule) == tokens
    assert min(schedule) >= 0


def test_draws_follow_the_probabilities_and_never_take_zero():
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


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 200), st.integers(0, 8), st.sampled_from([0.05, 0.5, 0.9, 1.0]), st.floats(0.05, 3), st.integers(0, 10**6)
)
def test_samples_follow_the_filtered_distribution(size, top_k, top_p, temperature, seed):
    """Compare shares with the softmax of all logits, filtered and divided by the temperature."""
    logits = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 2
    expected = (keep_top(logits, top_k, top_p) / temperature).softmax(-1)
    uniform = (torch.arange(4000) + 0.5) / 4000
    ids, confidence = sample_with_confidence(logits.expand(4000, -1), uniform, temperature, top_k, top_p)
    torch.testing.assert_close(ids.bincount(minlength=size) / 4000, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(confidence, expected[ids])
    torch.testing.assert_close(ids, sample(logits.expand(4000, -1), uniform, temperature, top_k, top_p))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_batch_of_requests_equals_single_calls(model, data):
    """Draw any mix of images, texts, partly given grids and missing conditions, and any settings."""
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 10**6)))
    size = data.draw(st.integers(1, 4))
    rgb = torch.randint(256, (size, 8, 8, 3), generator=generator).short()
    caption = torch.randint(7, 40, (size, 6), generator=generator)
    depth = torch.randint(11, (size, 4), generator=generator)
    for row in range(size):
        if data.draw(st.booleans()):
            rgb[row] = MISSING
        caption[row, data.draw(st.integers(0, 6)) :] = 0
        depth[row, : data.draw(st.integers(0, 4))] = MISSING
    known = {"rgb": rgb, "caption": caption, "tok_depth": depth}
    one = TargetConfig(
        order=data.draw(st.sampled_from(["roar", "maskgit"])),
        steps=data.draw(st.integers(1, 5)),
        schedule=data.draw(st.sampled_from(["cosine", "linear"])),
        temperature=data.draw(st.sampled_from([0.0, 0.8])),
        temperature_schedule=data.draw(st.sampled_from(["constant", "linear", "onex"])),
        final_temperature=0.2,
        top_k=data.draw(st.sampled_from([0, 3])),
        top_p=data.draw(st.sampled_from([0.7, 1.0])),
        guidance=data.draw(st.sampled_from([1.0, 2.0])),
    )
    config = GenerationConfig(grids=one, sequences=one, chain=data.draw(st.booleans()))
    weights = data.draw(st.sampled_from([None, {"rgb": 1.5, "caption": -0.5}]))
    targets = data.draw(st.permutations(["tok_depth", "tok_semseg", "caption"]))
    seeds = list(range(size))
    together = generate_tokens(model, known, targets, seeds, config, SPECIAL, weights)
    for row in range(size):
        alone = generate_tokens(model, some(known, [row]), targets, [row], config, SPECIAL, weights)
        for name in targets:
            width = alone[name].shape[1]
            assert together[name][row, :width].tolist() == alone[name][0].tolist()
            assert not together[name][row, width:].any()
    kept = depth != MISSING
    assert (together["tok_depth"][kept] == depth[kept]).all()
