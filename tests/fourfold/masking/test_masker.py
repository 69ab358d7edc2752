import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.masking.config import MaskingConfig, MixtureComponent
from fourfold.masking.masker import Masker
from fourfold.masking.spans import (
    SentinelIds,
    draw_masks,
    merge_spans,
    shuffle_chunks,
    with_eos,
    write_inputs,
    write_targets,
)
from fourfold.model.config import ModalityConfig, ModelConfig

SPECIAL = SentinelIds(3, tuple(range(5, 30)))
MODEL = ModelConfig(
    modalities=(
        ModalityConfig(name="rgb", kind="pixels", grid=(4, 4)),
        ModalityConfig(name="tok_depth", kind="grid", vocabulary_size=90, grid=(4, 4)),
        ModalityConfig(name="tok_clip", kind="grid", vocabulary_size=90, grid=(2, 3)),
        ModalityConfig(name="caption", kind="sequence", vocabulary_size=90, max_length=12),
        ModalityConfig(name="det", kind="sequence", vocabulary_size=90, max_length=16),
    ),
    dim=16,
    num_heads=2,
)
TOKENS = ("tok_depth", "tok_clip", "caption", "det")
text = st.lists(st.integers(40, 89), max_size=15)
alphas = st.fixed_dictionaries({name: st.sampled_from([0.0, 0.01, 0.5, 5.0]) for name in TOKENS}).filter(
    lambda a: any(a.values())
)


def padded(rows):
    array = np.zeros((len(rows), max(map(len, rows), default=0) + 1), np.int16)
    for row, ids in zip(array, rows, strict=True):
        row[: len(ids)] = ids
    return array


def sample_tokens(captions, boxes, seed=0):
    rng = np.random.default_rng(seed)
    grids = {
        name: rng.integers(0, 90, (len(captions), size), dtype=np.int16) for name, size in (("tok_depth", 16), ("tok_clip", 6))
    }
    return {**grids, "caption": padded(captions), "det": padded(boxes)}


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(text, text), min_size=1, max_size=5),
    alpha_in=alphas,
    alpha_target=alphas,
    budgets=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    keep=st.sampled_from(["random", "all", "binary"]),
    rgb=st.sampled_from([0.0, 2.0]),
    seed=st.integers(0, 2**32),
)
def test_masked_batches_contain_tokens_of_their_samples_within_budgets(rows, alpha_in, alpha_target, budgets, keep, rgb, seed):
    component = MixtureComponent(alpha_in={**alpha_in, "rgb": rgb}, alpha_target=alpha_target, keep=keep)
    masker = Masker(MaskingConfig(components=(component,), input_tokens=budgets[0], target_tokens=budgets[1]), MODEL, SPECIAL)
    tokens = sample_tokens(*zip(*rows, strict=True), seed % 1000)
    pixels = np.zeros((len(rows), 8, 8, 3), np.uint8)
    batch = masker(tokens, pixels, np.random.default_rng(seed))
    assert batch.input_modality_BN.shape == (len(rows), budgets[0]) and batch.target_id_BM.shape == (len(rows), budgets[1])
    for sample in range(len(rows)):
        for index, modality in enumerate(MODEL.modalities):
            inputs, targets = batch.input_modality_BN[sample] == index, batch.target_modality_BM[sample] == index
            if not (alpha_in | {"rgb": rgb})[modality.name]:
                assert not inputs.any()
            if not alpha_target.get(modality.name):
                assert not targets.any()
            in_place, target_place = batch.input_position_BN[sample][inputs], batch.target_position_BM[sample][targets]
            assert (in_place.diff() > 0).all() and (target_place.diff() > 0).all()
            assert (in_place < modality.num_positions).all() and (target_place < modality.num_positions).all()
            if modality.kind == "sequence":
                ranks = torch.arange(len(in_place)), torch.arange(len(target_place))
                assert torch.equal(in_place, ranks[0]) and torch.equal(target_place, ranks[1])
                before, after = batch.target_input_BM[sample][targets], batch.target_id_BM[sample][targets]
                assert torch.equal(before[1:], after[:-1])
                assert not len(before) or before[0] in SPECIAL.sentinels
            else:
                assert not set(in_place.tolist()) & set(target_place.tolist())
                assert not batch.target_input_BM[sample][targets].any()
            if modality.kind == "grid":
                grid = torch.from_numpy(tokens[modality.name][sample].astype(np.int64))
                assert torch.equal(batch.input_token_BN[sample][inputs], grid[in_place])
                assert torch.equal(batch.target_id_BM[sample][targets], grid[target_place])
    for side in (batch.input_position_BN, batch.input_token_BN):
        assert not side[~batch.input_keep_BN].any()
    for side in (batch.target_position_BM, batch.target_input_BM, batch.target_id_BM):
        assert not side[~batch.target_keep_BM].any()


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(text, min_size=1, max_size=6),
    budget=st.integers(0, 14),
    keep=st.floats(0, 1),
    chunk=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**32),
)
def test_inputs_fit_the_budget_and_restore_the_text_with_their_targets(rows, budget, keep, chunk, seed):
    rng = np.random.default_rng(seed)
    rows = [ids[: len(ids) // chunk * chunk] for ids in rows]
    texts = with_eos(padded(rows), SPECIAL.eos, np.full(len(rows), 16), np.full(len(rows), chunk))
    masked = draw_masks(texts, np.full(len(rows), keep), np.full(len(rows), budget), rng)
    in_ids, used = write_inputs(texts, masked, SPECIAL)
    target_ids, lengths = write_targets(texts, masked, np.full(len(rows), 99), SPECIAL, rng.integers)
    for row, ids in enumerate(rows):
        seen, target = in_ids[row][used[row]].tolist(), target_ids[row, : lengths[row]].tolist()
        assert len(seen) <= max(budget, 1)
        assert merge_spans(seen, target, SPECIAL) == [*ids, SPECIAL.eos]
        assert target[-1] in SPECIAL.sentinels and target[-1] not in seen
        assert (np.diff(masked[row, : len(ids)].reshape(-1, chunk), axis=1) == 0).all() or chunk == 1


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(text, min_size=1, max_size=5), chunk=st.integers(1, 4), seed=st.integers(0, 2**32))
def test_shuffling_keeps_chunks_whole_and_rows_separate(rows, chunk, seed):
    shuffled = shuffle_chunks(padded(rows), chunk, np.random.default_rng(seed))
    for row, ids in zip(shuffled.tolist(), rows, strict=True):
        whole = len(ids) // chunk * chunk
        before, after = (sorted(line[i : i + chunk] for i in range(0, whole, chunk)) for line in (ids, row))
        assert before == after
        assert row[whole : len(ids)] == ids[whole:] and not any(row[len(ids) :])


def test_all_orders_of_chunks_are_equally_likely():
    rows = np.tile(np.array([[40, 41, 50, 51, 60, 61, 0]]), (6000, 1))
    shuffled = shuffle_chunks(rows, 2, np.random.default_rng(0))
    counts = np.unique(shuffled[:, 0:6:2], axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert np.abs(counts - 1000).max() < 4 * np.sqrt(6000 * 1 / 6 * 5 / 6)  # four standard errors


EXTENDED = ModelConfig(
    modalities=(
        *MODEL.modalities,
        ModalityConfig(name="metadata", kind="sequence", vocabulary_size=90, max_length=16),
        ModalityConfig(name="t5_caption", kind="vectors", vector_width=3, max_length=6),
        ModalityConfig(name="tok_depth@448", kind="grid", vocabulary_size=90, grid=(8, 8)),
    ),
    dim=16,
    num_heads=2,
)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 8), min_size=1, max_size=5),
    alpha=st.sampled_from([0.01, 1.0, 100.0]),
    budget=st.integers(1, 9),
    keep=st.sampled_from(["random", "all", "binary", {"t5_caption": "all"}]),
    seed=st.integers(0, 2**32),
)
def test_vectors_outside_the_budget_are_zero(lengths, alpha, budget, keep, seed):
    component = MixtureComponent(alpha_in={"t5_caption": alpha, "caption": 1.0}, alpha_target={"tok_depth": 1.0}, keep=keep)
    masked = Masker(MaskingConfig(components=(component,), input_tokens=budget, target_tokens=4), EXTENDED, SPECIAL)
    vectors = np.zeros((len(lengths), 8, 3), np.float16)
    for row, length in enumerate(lengths):
        vectors[row, :length] = 1 + np.arange(length)[:, None] + 10 * row
    tokens = sample_tokens([[41, 42]] * len(lengths), [[]] * len(lengths)) | {"t5_caption": vectors}
    batch = masked(tokens, None, np.random.default_rng(seed))
    index = EXTENDED.index("t5_caption")
    assert batch.vectors_BLE.dtype == torch.float32 and batch.vectors_BLE.shape[1] <= min(budget, 6)
    assert (batch.target_modality_BM != index).all()
    for row, length in enumerate(lengths):
        slots = batch.input_modality_BN[row] == index
        seen = batch.vectors_BLE[row, batch.input_token_BN[row][slots], 0]
        assert torch.equal(batch.input_position_BN[row][slots], torch.arange(int(slots.sum())))
        there = vectors[row, : min(length, 6), 0].tolist()
        kept = [value in seen for value in there]
        # a vector of zeros where a run of those that are not shown begins, as the reference has it
        spans = [
            value if keep else 0 for value, keep, before in zip(there, kept, [True, *kept], strict=False) if keep or before
        ]
        assert seen.tolist() == (spans if slots.any() else [])
        assert int(batch.input_keep_BN[row].sum()) <= budget


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(*[st.lists(st.integers(40, 89), max_size=6)] * 2, st.lists(st.integers(40, 89), max_size=3)),
        min_size=1,
        max_size=5,
    ),
    keep=st.sampled_from(["random", "all", "binary"]),
    per=st.sampled_from(["sample", "sequence"]),
    seed=st.integers(0, 2**32),
)
def test_inputs_and_targets_restore_each_sequence(rows, keep, per, seed):
    names = ("caption", "det", "metadata")
    alphas = dict.fromkeys(names, 1e4)  # a third of each budget: enough for all
    component = MixtureComponent(alpha_in=alphas, alpha_target=alphas, keep=keep)
    config = MaskingConfig(components=(component,), input_tokens=60, target_tokens=80, keep_drawn_per=per)
    texts = [(caption, det, [token for pair in pairs for token in (pair, pair)]) for caption, det, pairs in rows]
    tokens = {name: padded(list(column)) for name, column in zip(names, zip(*texts, strict=True), strict=True)}
    batch = Masker(config, EXTENDED, SPECIAL)(tokens, None, np.random.default_rng(seed))
    for row, sample in enumerate(texts):
        for name, ids in zip(names, sample, strict=True):
            shown = batch.input_modality_BN[row] == EXTENDED.index(name)
            asked = batch.target_modality_BM[row] == EXTENDED.index(name)
            target = [*batch.target_input_BM[row][asked][:1].tolist(), *batch.target_id_BM[row][asked].tolist()]
            found = merge_spans(batch.input_token_BN[row][shown].tolist(), target, SPECIAL)
            if name == "metadata":
                assert sorted(found[:-1]) == sorted(ids) and found[-1] == SPECIAL.eos
                assert found[:-1:2] == found[1:-1:2]  # pairs are whole
            else:  # without a caption nothing is known; without boxes there is none
                assert found == ([*ids, SPECIAL.eos] if ids or name == "det" else [])


def test_vectors_that_fit_the_budget_are_all_visible():
    component = MixtureComponent(alpha_in={"t5_caption": 1.0}, alpha_target={"tok_depth": 1.0}, keep="all")
    masked = Masker(MaskingConfig(components=(component,), input_tokens=8, target_tokens=4), EXTENDED, SPECIAL)
    vectors = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float16)
    batch = masked({"t5_caption": vectors, "tok_depth": np.zeros((2, 16), np.int16)}, None, np.random.default_rng(0))
    np.testing.assert_array_equal(batch.vectors_BLE[:, :5], vectors.astype(np.float32))
    assert (batch.input_keep_BN.sum(1) == 5).all()


def test_metadata_pairs_are_masked_as_a_whole_in_random_order():
    component = MixtureComponent(alpha_in={"metadata": 1.0}, alpha_target={"metadata": 1.0})
    masked = Masker(MaskingConfig(components=(component,), input_tokens=6, target_tokens=16), EXTENDED, SPECIAL)
    pairs = [40, 41, 50, 51, 60, 61, 70, 71]
    batch = masked({"metadata": padded([pairs] * 400)}, None, np.random.default_rng(0))
    first = set()
    for seen, after in zip(batch.input_token_BN.tolist(), batch.target_id_BM.tolist(), strict=True):
        ids = [token for token in (*seen, *after) if token >= 40]
        assert sorted(ids) == pairs
        for side in (seen, after):
            numbers = [token for token in side if token >= 40]
            assert all(right == left + 1 for left, right in zip(numbers[::2], numbers[1::2], strict=True))
        first.add(ids[0])
    assert first == {40, 50, 60, 70}


def test_the_keep_scheme_may_differ_by_sequence():
    keep = {"caption": "all", "det": "binary"}
    component = MixtureComponent(alpha_in={"caption": 1e4, "det": 1e4}, alpha_target={"caption": 1.0, "det": 1.0}, keep=keep)
    masked = masker(component, input_tokens=40, target_tokens=60, keep_drawn_per="sequence")
    batch = masked(sample_tokens([[41, 42, 43]] * 300, [list(range(50, 60))] * 300), None, np.random.default_rng(0))
    shown = [(batch.input_modality_BN == index).sum(1) for index in (3, 4)]
    assert shown[0].tolist() == [4] * 300  # the whole text and its end
    counts = torch.bincount(shown[1])
    assert set(counts.nonzero().flatten().tolist()) == {1, 11}  # a sentinel, or all ten and the end
    assert abs(int(counts[11]) - 150) < 4 * np.sqrt(300 / 4)


def test_the_keep_probability_is_uniform_over_sequences():
    rows = 20_000
    texts = with_eos(np.full((rows, 20), 41), SPECIAL.eos, np.full(rows, 30), np.ones(rows, int))
    rng = np.random.default_rng(0)
    masked = draw_masks(texts, rng.random(rows), np.full(rows, 99), rng)
    kept = (~masked & texts.valid_RL).sum(1)
    counts = np.bincount(kept, minlength=22)  # a mixture of binomials over U(0, 1) is uniform on 0, …, 21
    assert len(counts) == 22 and np.abs(counts - rows / 22).max() < 4 * np.sqrt(rows / 22 * (21 / 22))


def test_super_resolution_draws_input_budgets_and_predicts_the_larger_grid():
    component = MixtureComponent(
        alpha_in={"rgb": 0.5, "tok_depth": 0.5, "tok_clip": 0.5, "tok_depth@448": 0.5}, alpha_target={"tok_depth@448": 1.0}
    )
    config = MaskingConfig(components=(component,), min_input_tokens=4, input_tokens=30, target_tokens=64)
    tokens = sample_tokens([[]] * 500, [[]] * 500) | {
        "tok_depth@448": np.arange(64, dtype=np.int16) + np.zeros((500, 1), np.int16)
    }
    batch = Masker(config, EXTENDED, SPECIAL)(tokens, np.zeros((500, 8, 8, 3), np.uint8), np.random.default_rng(0))
    large = EXTENDED.index("tok_depth@448")
    shown, asked = (batch.input_modality_BN == large).sum(1), (batch.target_modality_BM == large).sum(1)
    assert ((shown + asked) == 64).all()  # all of the larger grid that is not shown
    sums = batch.input_keep_BN.sum(1)
    assert int(sums.min()) < 8 and int(sums.max()) > 26 and len(set(sums.tolist())) > 20


def test_a_data_set_can_be_limited_to_some_modalities():
    tokens = sample_tokens([[41, 42, 43]] * 50, [[50] * 5] * 50)
    component = MixtureComponent(alpha_in=dict.fromkeys(TOKENS, 0.5), alpha_target=dict.fromkeys(TOKENS, 0.5))
    config = MaskingConfig(components=(component,), input_tokens=20, target_tokens=24)
    only = Masker(config, MODEL, SPECIAL, only=("caption", "tok_clip"))(tokens, None, np.random.default_rng(0))
    assert set(only.input_modality_BN.unique().tolist()) | set(only.target_modality_BM.unique().tolist()) == {-1, 2, 3}
    none = Masker(config, MODEL, SPECIAL, only=())(tokens, None, np.random.default_rng(0))
    assert not none.input_keep_BN.any() and not none.target_keep_BM.any()


def masker(component=None, **settings):
    component = component or MixtureComponent(
        alpha_in=dict.fromkeys(("rgb", *TOKENS), 0.5), alpha_target=dict.fromkeys(TOKENS, 0.5)
    )
    return Masker(
        MaskingConfig(components=(component,), **{"input_tokens": 20, "target_tokens": 24} | settings), MODEL, SPECIAL
    )


def test_batches_depend_on_the_generator_only():
    tokens = sample_tokens([[41, 42, 43]] * 4, [[50] * 5] * 4)
    first, again, other = (masker()(tokens, None, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.input_token_BN, again.input_token_BN) and torch.equal(first.target_id_BM, again.target_id_BM)
    assert not torch.equal(first.target_id_BM, other.target_id_BM)


def test_the_budget_of_a_missing_modality_stays_empty():
    tokens = sample_tokens([[41, 42, 43]] * 50, [[50] * 5] * 50)
    del tokens["tok_depth"]
    batch = masker()(tokens, None, np.random.default_rng(0))
    present = set(batch.input_modality_BN.unique().tolist()) | set(batch.target_modality_BM.unique().tolist())
    assert present == {-1, 2, 3, 4}
    assert batch.pixels_BHWC is None


def test_a_text_that_fits_is_visible_completely_with_keep_all():
    component = MixtureComponent(alpha_in={"caption": 5.0}, alpha_target={"tok_depth": 1.0}, keep="all")
    batch = masker(component)(sample_tokens([[41, 42, 43]] * 3, [[]] * 3), None, np.random.default_rng(0))
    assert batch.input_token_BN[:, :4].tolist() == [[41, 42, 43, 3]] * 3
    assert (batch.target_modality_BM == 1).sum(1).tolist() == [16] * 3  # capped at what the grid has


def test_budgets_can_be_drawn_from_a_range():
    component = MixtureComponent(alpha_in={"rgb": 1.0}, alpha_target={"tok_depth": 1.0})
    masked = masker(component, input_tokens=10, min_input_tokens=3)
    batch = masked(sample_tokens([[]] * 300, [[]] * 300), np.zeros((300, 8, 8, 3), np.uint8), np.random.default_rng(0))
    assert set(batch.input_keep_BN.sum(1).tolist()) == set(range(3, 11))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: masker(MixtureComponent(alpha_in={"captoin": 1.0}, alpha_target={"det": 1.0})), "Did you mean 'caption'"),
        (lambda: masker(MixtureComponent(alpha_in={"det": 1.0}, alpha_target={"rgb": 1.0})), "input only"),
        (lambda: MixtureComponent(alpha_in={"det": 0.0}, alpha_target={"det": 1.0}), "at least one alpha above 0"),
        (lambda: Masker(masker().config, MODEL, SentinelIds(3, (5, 6, 7))), "sentinels"),
        (lambda: masker(chunk_lengths={"rgb": 2}), "no sequences"),
        (
            lambda: masker(MixtureComponent(alpha_in={"det": 1.0}, alpha_target={"det": 1.0}, keep={"rgb": "all"})),
            "`keep` names rgb",
        ),
        (
            lambda: Masker(
                MaskingConfig(components=(MixtureComponent(alpha_in={"det": 1.0}, alpha_target={"t5_caption": 1.0}),)),
                EXTENDED,
                SPECIAL,
            ),
            "is vectors and input only",
        ),
        (lambda: MaskingConfig(input_tokens=3, min_input_tokens=4), "above"),
    ],
)
def test_invalid_settings_are_rejected_with_a_reason(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=6).filter(lambda given: True in given), st.sampled_from([0.0, 0.05]))
def test_a_sample_without_a_caption_has_none_as_input_or_target_and_keeps_its_budget(has_caption, others):
    captions = [[40, 41, 42, 43] if there else [] for there in has_caption]
    alphas = {"caption": 5.0, "tok_depth": others or 0.5, "tok_clip": others}
    component = MixtureComponent(alpha_in=alphas, alpha_target=alphas)
    masker = Masker(MaskingConfig(components=(component,), input_tokens=10, target_tokens=10), MODEL, SPECIAL)
    tokens = sample_tokens(captions, [[]] * len(captions))
    batch = masker(tokens, None, np.random.default_rng(0))
    caption = MODEL.index("caption")
    for side in (batch.input_modality_BN, batch.target_modality_BM):
        shown = (side == caption).any(1).numpy()
        assert not shown[~np.array(has_caption)].any()
    missing = ~np.array(has_caption)
    used = (batch.input_modality_BN.numpy()[missing] >= 0).sum(1)
    assert (used == 10).all() if not others else (used >= 6).all()  # tok_clip has six tokens


def test_a_missing_caption_changes_nothing_of_samples_that_have_one():
    component = MixtureComponent(alpha_in=dict.fromkeys(TOKENS, 0.5), alpha_target=dict.fromkeys(TOKENS, 0.5))
    masker = Masker(MaskingConfig(components=(component,), input_tokens=20, target_tokens=20), MODEL, SPECIAL)
    tokens = sample_tokens([[40, 41]] * 8, [[50]] * 8)
    expected = masker(tokens, None, np.random.default_rng(0))
    masker.may_be_missing = set()
    found = masker(tokens, None, np.random.default_rng(0))
    assert torch.equal(expected.target_id_BM, found.target_id_BM) and torch.equal(expected.input_token_BN, found.input_token_BN)
