"""Sparse depth becomes tokens where enough of a patch was measured."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fourfold.generation.conditions import MISSING
from fourfold.generation.sparse_depth import filled, read_kitti_depth, reduced, sparse_depth_tokens
from tests.support.tiny_any_to_any import tiny_any_to_any

SIDE, PATCH = 16, 8


@pytest.fixture(scope="module")
def model():
    return tiny_any_to_any()


def test_depth_png_of_kitti_has_meters(tmp_path):
    stored = np.array([[0, 256, 20480], [1, 384, 65535]], np.uint16)
    Image.fromarray(stored).save(tmp_path / "a.png")
    depth = read_kitti_depth(tmp_path / "a.png", (2, 3))
    assert depth.dtype == np.float32 and depth.tolist() == [[0, 1, 80], [1 / 256, 1.5, 65535 / 256]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: Image.new("L", (3, 2)).save(path), "a.png has the mode L; depth needs 16 bits"),
        (lambda path: Image.new("RGB", (3, 2)).save(path), "a.png has the mode RGB"),
        (lambda path: path.write_bytes(b"none"), "a.png cannot be read as depth: it is no PNG, or is damaged"),
        (lambda path: None, "a.png cannot be read as depth: No such file"),
        (lambda path: Image.fromarray(np.ones((4, 3), np.uint16)).save(path), "a.png has 4 x 3 pixels; its image has 2 x 3"),
    ],
)
def test_other_files_are_refused(tmp_path, make, message):
    make(tmp_path / "a.png")
    with pytest.raises(ValueError, match=message):
        read_kitti_depth(tmp_path / "a.png", (2, 3))


def test_truncated_file_is_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 65536, (40, 40)).astype(np.uint16)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:900])
    with pytest.raises(ValueError, match="cannot be read as depth"):
        read_kitti_depth(tmp_path / "a.png")


def test_complete_depth_gives_the_tokens_of_dense_depth(model):
    dense = np.exp(np.random.default_rng(0).uniform(0, 4, (SIDE, SIDE))).astype(np.float32)
    expected = model.target_tokens("depth", dense[None])[0].flatten().tolist()
    assert len(set(expected)) > 1
    assert sparse_depth_tokens(model, [dense], min_measured=1)[0].tolist() == expected


@pytest.mark.parametrize("size", [(SIDE, SIDE), (32, 48), (5, 9)])
def test_tokens_are_there_where_enough_is_measured(model, size):
    depth = np.zeros(size, np.float32)
    depth[:, : size[1] // 2] = 7
    found = sparse_depth_tokens(model, [depth])[0].reshape(2, 2)
    assert (found[:, 0] >= 0).all() and (found[:, 1] == MISSING).all()


@pytest.mark.parametrize(("measured", "is_given"), [(15, False), (16, True)])
def test_a_quarter_of_the_pixels_is_enough(model, measured, is_given):
    depth = np.zeros((SIDE, SIDE), np.float32)
    depth[:PATCH, :PATCH].flat[:measured] = 3
    assert (sparse_depth_tokens(model, [depth])[0, 0] != MISSING) == is_given


def test_nothing_measured_gives_no_token(model):
    empty, dense = np.zeros((20, 30), np.float32), np.full((9, 7), 4, np.float32)
    found = sparse_depth_tokens(model, [empty, dense, empty])
    assert (found[[0, 2]] == MISSING).all() and found[1].tolist() == sparse_depth_tokens(model, [dense])[0].tolist()


def test_measurements_in_one_pixel_are_averaged_by_their_logarithms():
    depth = np.zeros((4, 4), np.float32)
    depth[0, 0], depth[1, 1], depth[2, 3] = 2, 8, 5
    assert reduced(depth, 2) == pytest.approx(np.array([[4, 0], [0, 5]]))


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.5, 80))
def test_constant_depth_stays_constant_in_any_shape(height, width, meters):
    depth = np.full((height, width), meters, np.float32)
    assert reduced(depth, SIDE) == pytest.approx(np.full((SIDE, SIDE), meters), rel=1e-5)


def test_gaps_take_the_value_of_the_nearest_measurement():
    depth = np.zeros((1, 7), np.float32)
    depth[0, 1], depth[0, 5] = 3, 9
    found = filled(depth)[0]
    assert found[[0, 1, 2, 4, 5, 6]].tolist() == [3, 3, 3, 9, 9, 9] and found[3] in (3, 9)


def test_measurements_beyond_the_learned_range_have_its_ends(model):
    far, farthest, near, nearest = (np.full((SIDE, SIDE), meters, np.float32) for meters in (300, np.exp(4), 0.02, 1))
    found = sparse_depth_tokens(model, [far, farthest, near, nearest]).tolist()
    assert found[0] == found[1] and found[2] == found[3] != found[0]


@pytest.mark.parametrize("wrong", [-1, np.nan, np.inf])
def test_values_that_are_no_depth_are_refused(model, wrong):
    with pytest.raises(ValueError, match="allowed: meters, 0 for none"):
        sparse_depth_tokens(model, [np.full((SIDE, SIDE), wrong, np.float32)])


def test_models_without_meters_are_refused(model, monkeypatch):
    monkeypatch.setattr(type(model), "has_relative_depth", True)
    with pytest.raises(ValueError, match="the depth of this model has no unit"):
        sparse_depth_tokens(model, [np.ones((SIDE, SIDE), np.float32)])
