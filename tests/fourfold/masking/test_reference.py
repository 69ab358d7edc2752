"""Masking compared with vectors of 4M's released code: the same random draws must give the same masks."""

import json
from pathlib import Path

import numpy as np
import pytest

from fourfold.masking.budgets import whole_tokens
from fourfold.masking.config import MaskingConfig, MixtureComponent
from fourfold.masking.masker import Masker, grid_masks
from fourfold.masking.spans import SentinelIds, first_that_fits, merge_spans, with_eos, write_inputs, write_targets
from fourfold.model.config import ModalityConfig, ModelConfig

GOLDEN = json.loads((Path(__file__).parents[2] / "reference" / "masking.json").read_text())
SPECIAL = SentinelIds(GOLDEN["special_ids"]["EOS"], tuple(range(5, GOLDEN["special_ids"]["last_sentinel_S_199"] + 1)))
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
    target = ids[0, : lengths[0]].tolist()
    assert target == case["target_ids"]
    assert not ids[0, lengths[0] :].any()
    assert reference_arrays(case["input_ids"], target, budget, case["max_tokens"]) == {
        name: case[name] for name in ("tensor", "input_mask", "target_mask", "decoder_attention_mask")
    }


def reference_arrays(inputs, target, budget, max_tokens):
    """Return the layout of the released code: inputs from 0, targets from the budget on; its masks are 1 where excluded."""
    place = np.arange(2 * (max_tokens + 1))
    tensor = np.zeros(len(place), int)
    tensor[: len(inputs)] = inputs
    tensor[budget : budget + len(target)] = target
    is_target = (place >= budget) & (place < budget + len(target))
    arrays = {"tensor": tensor, "input_mask": place >= len(inputs), "target_mask": ~is_target}
    return {name: array.astype(int).tolist() for name, array in (arrays | {"decoder_attention_mask": is_target}).items()}


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
def test_spans_are_merged_as_in_the_reference(case):
    assert merge_spans(case["input_ids"], case["target_ids"], SPECIAL) == case["merged"]


@pytest.mark.parametrize(("component", "index"), [("rgb2all", 0), ("all2all", 1)])
def test_budgets_are_distributed_as_in_the_reference(component, index):
    """Compare two samples of 20,000: means, deviations, shares and quantiles within four standard errors."""
    wanted = GOLDEN["budget_statistics"]
    names, types = wanted["modality_order"], wanted["types"]
    kinds = {name: "sequence" if types[name] == "seq" else "pixels" if name.startswith("rgb") else "grid" for name in names}
    modalities = [modality_of(name, kind, wanted["max_tokens"][name]) for name, kind in kinds.items()]
    alphas = {side: {name: wanted["alphas"][name][f"{side}_alphas"][index] for name in names} for side in ("input", "target")}
    component_of = MixtureComponent(alpha_in=alphas["input"], alpha_target=alphas["target"])
    config = MaskingConfig(components=(component_of,), input_tokens=wanted["num_input_tokens"])
    masker = Masker(config, ModelConfig(modalities=tuple(modalities)), SPECIAL)
    draws = wanted["draws_per_component"]
    lengths = np.array([wanted["max_tokens"][name] for name in names])
    budgets = masker._budgets(np.zeros(draws, int), lengths, np.random.default_rng(0))
    for side, found in zip(("input", "target"), budgets, strict=True):
        expected = wanted["components"][component][side]
        assert_alike(found.sum(1), expected["sum"] | {"share_zero": 0.0}, draws)
        for name, column in zip(names, found.T, strict=True):
            assert_alike(column, expected["modality"][name], draws)


def modality_of(name, kind, length):
    vocabulary = 0 if kind == "pixels" else 30_000
    shape = {"max_length": length} if kind == "sequence" else {"grid": (14, length // 14)}
    return ModalityConfig(name=name, kind=kind, vocabulary_size=vocabulary, **shape)


def assert_alike(found, wanted, draws):
    """Compare one sample of counts with the statistics of another, both of `draws`."""
    both = np.sqrt((found.var() + wanted["std"] ** 2) / draws)
    assert abs(found.mean() - wanted["mean"]) <= 4 * both + 1e-9
    moment = ((found - found.mean()) ** 4).mean()  # the standard error of a variance
    error = np.sqrt(2 * max(moment - found.var() ** 2, 0) / draws)
    assert abs(found.var() - wanted["std"] ** 2) <= 4 * error + 0.05 * (found.std() < 1)
    share = wanted["share_zero"]
    assert abs((found == 0).mean() - share) <= 4 * np.sqrt(2 * share * (1 - share) / draws) + 1e-9
    for level, value in zip((0.05, 0.25, 0.5, 0.75, 0.95), wanted.get("quantiles_5_25_50_75_95", ()), strict=False):
        # the share of our draws below theirs' quantile, and at it: the quantile's own level lies between
        slack = 4 * np.sqrt(2 * level * (1 - level) / draws)
        assert (found < value).mean() - slack <= level <= (found <= value).mean() + slack
