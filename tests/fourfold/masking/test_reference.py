"""The golden vectors of the reference: forced draws in, exact masks out."""

import json
from pathlib import Path

import numpy as np
import pytest

from fourfold.masking.budgets import draw_budgets, whole_tokens
from fourfold.masking.masker import grid_masks
from fourfold.masking.spans import SpecialIds, first_that_fits, merge_spans, with_eos, write_inputs, write_targets

GOLDEN = json.loads((Path(__file__).parents[2] / "reference" / "masking.json").read_text())
SPECIAL = SpecialIds(GOLDEN["special_ids"]["EOS"], tuple(range(5, GOLDEN["special_ids"]["last_sentinel_S_199"] + 1)))
UNLIMITED = 10_000


def cases(name):
    return pytest.mark.parametrize("case", GOLDEN[name], ids=[case["name"] for case in GOLDEN[name]])


def texts_of(case):
    chunks = case["kind"] == "chunk"
    ids = [token for row in case["ids_before_eos"] for token in row] if chunks else case["ids_before_eos"]
    rows = np.array([[*ids, 0, 0]])
    return with_eos(rows, SPECIAL.eos, np.array([case["max_tokens"]]), np.array([5 if chunks else 1]))


@cases("sequence_cases")
def test_spans_are_masked_as_in_the_reference(case):
    texts, budget = texts_of(case), case["input_budget"]
    length = int(texts.length_R[0])
    if budget:
        by_chunk = [np.array(pattern, bool) for pattern in case["masked_per_try"]]
        tries = np.stack([pattern[texts.chunk_RL[0, :length]] for pattern in by_chunk])[None]
        rows, chosen = first_that_fits(tries, texts.valid_RL[:, :length], np.array([budget]))
        assert rows.tolist() == [0] and chosen[0] == case["tries_used"] - 1
        masked = np.zeros_like(texts.valid_RL)
        masked[:, :length] = tries[:, chosen[0]]
        ids, used = write_inputs(texts, masked, SPECIAL)
        assert ids[used].tolist() == case["input_ids"]
    else:
        masked = texts.valid_RL
        assert case["input_ids"] == []
    draw = case["sentinel_draw"] or {"drawn": 0, "upper_exclusive": None}

    def forced(num_runs):
        assert draw["upper_exclusive"] in (None, num_runs[0])
        return np.array([draw["drawn"]])

    target_budget = UNLIMITED if case["target_budget"] is None else case["target_budget"]
    ids, lengths = write_targets(texts, masked, np.array([target_budget]), SPECIAL, forced)
    assert ids[0, : lengths[0]].tolist() == case["target_ids"]
    assert not ids[0, lengths[0] :].any()


@cases("image_cases")
def test_grids_are_masked_as_in_the_reference(case):
    budget = UNLIMITED if case["target_budget"] is None else case["target_budget"]
    inputs, targets = grid_masks(np.array(case["noise"]), np.array(case["input_budget"]), np.array(budget))
    assert np.flatnonzero(inputs).tolist() == case["input_positions"]
    assert np.flatnonzero(targets).tolist() == case["target_positions"]


@cases("budget_cases")
def test_budgets_are_split_as_in_the_reference(case):
    caps = np.array([case["max_tokens"]])

    def split(side, total, caps):
        shares = np.array([case[f"{side}_p"]])
        extra = np.array([case[f"{side}_extra_draws"]]).reshape(1, -1, shares.shape[1])
        return whole_tokens(shares, extra, np.array([total]), caps)

    inputs = split("input", case["num_input_tokens"], caps)
    left = np.where(np.array(case["types"]) == "img", caps - inputs, caps)
    assert inputs[0].tolist() == case["input_budget"]
    assert split("target", case["num_target_tokens"], left)[0].tolist() == case["target_budget"]


@cases("merge_cases")
def test_runs_are_spliced_back_as_in_the_reference(case):
    assert merge_spans(case["input_ids"], case["target_ids"], SPECIAL) == case["merged"]


@pytest.mark.parametrize(("component", "index"), [("rgb2all", 0), ("all2all", 1)])
def test_drawn_budgets_are_distributed_as_in_the_reference(component, index):
    wanted = GOLDEN["budget_statistics"]
    names, types = wanted["modality_order"], wanted["types"]
    lengths = np.array([wanted["max_tokens"][name] for name in names])
    rng, draws = np.random.default_rng(0), 20_000
    caps = np.broadcast_to(lengths, (draws, len(names)))

    def draw(side, caps):
        alphas = np.array([wanted["alphas"][name][f"{side}_alphas"][index] for name in names])
        total = np.full(draws, wanted[f"num_{side}_tokens"])
        return draw_budgets(np.broadcast_to(alphas, (draws, len(names))), total, caps, rng)

    inputs = draw("input", caps)
    targets = draw("target", np.where([types[name] == "img" for name in names], caps - inputs, caps))
    for side, budgets in (("input", inputs), ("target", targets)):
        expected = wanted["components"][component][side]
        assert budgets.sum(1).mean() == pytest.approx(expected["sum"]["mean"], abs=0.5)
        for name, column in zip(names, budgets.T, strict=True):
            statistics = expected["modality"][name]
            assert column.mean() == pytest.approx(statistics["mean"], abs=0.7)  # four standard errors of 20,000 + 20,000 draws
            assert column.std() == pytest.approx(statistics["std"], abs=0.7)
            assert (column == 0).mean() == pytest.approx(statistics["share_zero"], abs=0.015)
            quantiles = np.quantile(column, [0.05, 0.25, 0.5, 0.75, 0.95])
            assert np.allclose(quantiles, statistics["quantiles_5_25_50_75_95"], atol=2)
