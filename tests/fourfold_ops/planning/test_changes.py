"""Differences between parameters, and which settings count for a claimed folder."""

import pytest

from fourfold_ops.planning.changes import Change, counts_for, parameter_changes, phrases_of, summary


def test_parameters_are_compared_leaf_by_leaf():
    old = {"a": {"b": 1, "c": [1, 2], "gone": True}, "empty": {}}
    new = {"a": {"b": 1, "c": [1, 3], "new": None}, "empty": {}}
    assert [change.text for change in parameter_changes(old, new)] == [
        "parameter a.c: [1, 2] → [1, 3]",
        "parameter a.gone: true → unset",
        "parameter a.new: unset → null",
    ]
    assert parameter_changes(new, new) == []
    (change,) = parameter_changes({"a": "x" * 100}, {"a": 1})
    assert len(change.old) == 60 and change.old.endswith("...")


@pytest.mark.parametrize(
    ("key", "settings", "wanted"),
    [
        ("seed", {"seed": 0}, True),
        ("seed", {"config": {"a": 1}}, False),
        ("pretraining.model.dim", {"config": {"model": {"dim": 1}}}, True),
        ("pretraining.model.dim", {"config": {"model": {"depth": 1}, "dim": 2}}, True),  # rather too much than too little
        ("pretraining.model.dim", {"config": {"model": {"depth": 1}}}, False),
        ("labeling.integration.min_score", {"integration": {"min_score": 1}}, True),
        ("labeling.integration.min_score", {"labeling": {"labelers": {}}}, False),
        ("finetuning.steps.vqa", {"config": {"steps": 3}}, True),  # a number became a table
        ("labeling.teachers.a.fit.steps", {"config": {"steps": 3}}, False),
        ("ingestion.source.size", {"config": {"size": 3}}, True),  # the settings of the source alone
    ],
)
def test_a_parameter_counts_for_a_folder_that_has_it_among_its_settings(key, settings, wanted):
    assert counts_for(key, settings) == wanted


def test_stages_before_are_one_phrase():
    changes = [Change("stage", "a"), Change("missing", "data/x"), Change("stage", "b")]
    assert phrases_of(changes) == ["data/x does not exist", "a, b run before"]
    assert summary(changes, 1) == "data/x does not exist and 1 more"
