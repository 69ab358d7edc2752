import pytest

from fourfold_ops.tracking.results import leaves, results_tags


def test_every_number_has_a_name_that_mlflow_accepts():
    table = {
        "rgb->depth": {"abs_rel": {"value": 0.5, "ci95": [0.25, 1], "teacher": None}},
        "samples": 3,
        "model": "e396",
        "converged": True,
        "empty": {},
    }
    assert leaves(table) == {
        "rgb_to_depth/abs_rel/value": 0.5,
        "rgb_to_depth/abs_rel/ci95/0": 0.25,
        "rgb_to_depth/abs_rel/ci95/1": 1.0,
        "samples": 3.0,
        "converged": 1.0,
    }


def test_two_metrics_of_one_name_are_an_error():
    with pytest.raises(ValueError, match="Two metrics are called 'R_1' in MLflow; one is 'R@1'"):
        leaves({"R_1": 1, "R@1": 2})


def test_a_table_says_what_it_lacks():
    sentence = "The transfer results are left out."
    assert results_tags({"left_out": [sentence]}) == {"evaluation.scope": "partial", "evaluation.left_out": sentence}
    assert results_tags({"a": 1, "left_out": []}) == results_tags([1]) == {"evaluation.scope": "whole"}
