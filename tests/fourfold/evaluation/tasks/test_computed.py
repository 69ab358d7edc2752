"""Scores of palettes and metadata, by hand."""

import numpy as np
import pytest

from fourfold.evaluation.tasks.computed import commonest_metadata, mean_palette, metadata_statistics, palette_statistics
from fourfold.evaluation.tasks.trivial import commonest_edges
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


def test_a_palette_that_is_missing_is_as_far_away_as_can_be():
    assert color_distance({}, {"1": [[0, 0, 0]]}) == pytest.approx(np.sqrt(3) * 255)
    assert color_distance({}, {}) == 0


def test_the_mean_palette_has_the_commonest_size():
    known = [{"1": [[0, 0, 0]]}, {"1": [[9, 9, 9]], "2": [[0, 0, 0], [2, 2, 2]]}, {"2": [[4, 4, 4], [6, 6, 6]]}, {}]
    assert mean_palette(known) == {"2": [[2, 2, 2], [4, 4, 4]]}


def test_metadata_count_by_bins_and_what_is_not_said_is_wrong():
    truth = [{"caption_n_words": 7, "n_humans": 1, "contrast": 50.0}, {"caption_n_words": 5}]
    said = [{"caption_n_words": 8, "n_humans": 1}, {"caption_n_words": 3, "contrast": 9.0}]
    assert values(metadata_statistics(said, truth)) == {"same_bin": 1 / 4, "near_bin": 2 / 4}
    assert commonest_metadata([{"n_humans": 2}, {"n_humans": 3}, {"n_humans": 3, "caption_n_words": 4}]) == {
        "n_humans": 3,
        "caption_n_words": 4,
    }


def test_edges_one_pixel_off_are_right_two_pixels_off_are_wrong_and_none_score_nothing():
    truth = np.zeros((1, 8, 8), np.uint8)
    truth[0, 3] = 255
    for shift, f1 in ((0, 1), (1, 1), (2, 0)):
        assert value(edge_statistic(np.roll(truth, shift, axis=1), truth)) == f1
    assert value(edge_statistic(np.zeros_like(truth), truth)) == 0
    twice = truth.copy()
    twice[0, 6] = 255  # half of what is said is right, all that is true is found
    assert value(edge_statistic(twice, truth)) == pytest.approx(2 / 3)


def test_the_commonest_edges_are_those_with_the_best_f1():
    edges = np.zeros((4, 16, 16), np.uint8)
    edges[:, 3] = 255
    edges[0, 12] = 255
    found = commonest_edges(edges)
    assert found.dtype == np.uint8 and (found == edges[1]).all()
