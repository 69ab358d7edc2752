"""Scores of edges, palettes and metadata, compared with values computed by hand."""

import numpy as np
import pytest

from fourfold.evaluation.tasks.computed import (
    mean_palette,
    metadata_statistics,
    most_frequent_edges,
    most_frequent_metadata,
    palette_statistics,
)
from fourfold.metrics.dense import edge_statistic
from fourfold.metrics.statistics import value, values


def color_distance(predicted, truth):
    return value(palette_statistics([predicted], [truth])["color_distance"])


def test_a_palette_is_compared_with_that_of_its_size_in_any_order():
    truth = {"1": [[100, 0, 0]], "2": [[0, 0, 0], [200, 0, 0]]}
    assert color_distance({"2": [[200, 0, 0], [0, 0, 0]]}, truth) == 0
    assert color_distance({"1": [[103, 4, 0]]}, truth) == 5
    # three colors where the truth has two at most: 0, 10 and 0 away one way, 0 and 0 the other
    assert color_distance({"3": [[0, 0, 0], [0, 10, 0], [200, 0, 0]]}, truth) == pytest.approx((10 / 3 + 0) / 2)


def test_a_missing_palette_has_the_maximum_distance():
    assert color_distance({}, {"1": [[0, 0, 0]]}) == pytest.approx(np.sqrt(3) * 255)
    assert np.isnan(color_distance({}, {})) and np.isnan(color_distance({"1": [[0, 0, 0]]}, {}))  # nothing to compare with


def test_the_mean_palette_has_the_most_frequent_size():
    samples = [{"1": [[0, 0, 0]]}, {"1": [[9, 9, 9]], "2": [[0, 0, 0], [2, 2, 2]]}, {"2": [[4, 4, 4], [6, 6, 6]]}, {}]
    assert mean_palette(samples) == {"2": [[2, 2, 2], [4, 4, 4]]}


def test_metadata_are_compared_by_bins_and_missing_ones_are_wrong():
    truth = [{"caption_n_words": 7, "n_humans": 1, "contrast": 50.0}, {"caption_n_words": 5}]
    predicted = [{"caption_n_words": 8, "n_humans": 1}, {"caption_n_words": 3, "contrast": 9.0}]
    assert values(metadata_statistics(predicted, truth)) == {"same_bin": 1 / 4, "near_bin": 2 / 4}
    assert most_frequent_metadata([{"n_humans": 2}, {"n_humans": 3}, {"n_humans": 3, "caption_n_words": 4}]) == {
        "n_humans": 3,
        "caption_n_words": 4,
    }


def test_edges_count_within_one_pixel():
    truth = np.zeros((1, 8, 8), np.uint8)
    truth[0, 3] = 255
    for shift, f1 in ((0, 1), (1, 1), (2, 0)):
        assert value(edge_statistic(np.roll(truth, shift, axis=1), truth)) == f1
    assert value(edge_statistic(np.zeros_like(truth), truth)) == 0
    twice = truth.copy()
    twice[0, 6] = 255  # precision 1/2, recall 1
    assert value(edge_statistic(twice, truth)) == pytest.approx(2 / 3)


def test_the_most_frequent_edges_have_the_best_f1():
    edges = np.zeros((4, 16, 16), np.uint8)
    edges[:, 3] = 255
    edges[0, 12] = 255
    found = most_frequent_edges(edges)
    assert found.dtype == np.uint8 and (found == edges[1]).all()
