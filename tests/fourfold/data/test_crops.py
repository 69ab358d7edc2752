"""Crops: all labels of a sample are cropped by the same window."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.data.crops import MIN_VISIBLE, CropConfig, crop_values, draw_crops
from fourfold.seeds import numpy_generator

CONFIG = CropConfig(num_crops=4, flip_probability=0.5)
WHOLE = (0, 0, 8, 8, 0)


def row(*crop: int) -> np.ndarray:
    return np.array([crop], dtype=np.int32)


def test_drawn_crops_are_inside_the_image_with_the_allowed_area():
    crops = draw_crops(200, (64, 96), CONFIG, numpy_generator(0, "crops"))
    assert crops.shape == (200, 4, 5) and crops.dtype == np.int32
    np.testing.assert_array_equal(crops[:, 0], [(0, 0, 64, 96, 0)] * 200)
    top, left, height, width, flip = np.moveaxis(crops[:, 1:], -1, 0)
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 64).all() and (left + width <= 96).all()
    assert (height * width >= 0.75 * 64 * 96).all() and set(np.unique(flip)) == {0, 1}
    assert (top + height == 64).any() and (left + width == 96).any()


@pytest.mark.parametrize("name", ["rgb", "depth", "normal", "semseg", "clip"])
def test_whole_image_crop_changes_nothing(name):
    rng = numpy_generator(0, name)
    values = rng.integers(0, 6, (1, 8, 8, 3)).astype(np.uint8 if name != "clip" else np.float16)
    values = values[..., 0].astype(np.float16 if name == "depth" else np.uint8) if name in ("depth", "semseg") else values
    np.testing.assert_array_equal(crop_values(name, values, row(*WHOLE)), values)


def test_class_ids_are_resized_without_interpolation():
    classes = np.array([[[0, 1], [2, 3]]], np.uint8).repeat(4, 1).repeat(4, 2)
    for top, left, expected in ((0, 0, 0), (0, 4, 1), (4, 0, 2), (4, 4, 3)):
        assert (crop_values("semseg", classes, row(top, left, 4, 4, 0)) == expected).all()


def test_feature_map_is_cropped_by_the_window_of_its_image():
    features = numpy_generator(0, "features").normal(size=(1, 8, 8, 3)).astype(np.float16)
    large = features.repeat(4, 1).repeat(4, 2)
    crop = row(8, 4, 16, 24, 1)  # pixels of the large image
    small = crop_values("clip", features, crop, image_size=(32, 32))
    np.testing.assert_array_equal(small, crop_values("clip", features, row(2, 1, 4, 6, 1)))
    assert small.shape == features.shape and crop_values("rgb", large, crop).shape == large.shape
    with pytest.raises(ValueError, match="'det' has no pixels"):
        crop_values("det", [{"instances": []}], crop)


def test_flip_mirrors_pixels_and_negates_x_of_normals():
    values = numpy_generator(0, "flip").integers(0, 256, (1, 8, 8, 3)).astype(np.uint8)
    mirrored = values[:, :, ::-1]
    np.testing.assert_array_equal(crop_values("rgb", values, row(0, 0, 8, 8, 1)), mirrored)
    normals = crop_values("normal", values, row(0, 0, 8, 8, 1))
    np.testing.assert_array_equal(normals[..., 0], 255 - mirrored[..., 0])
    np.testing.assert_array_equal(normals[..., 1:], mirrored[..., 1:])


@settings(max_examples=60)
@given(st.lists(st.integers(0, 7), min_size=4, max_size=4), st.integers(1, 8), st.integers(1, 8), st.booleans())
def test_joints_stay_on_their_pixels(places, height, width, flip):
    """Each joint is in the middle of a pixel that has its own class id; the crop enlarges to twice the pixels."""
    top, left = min(places[0], 8 - height), min(places[1], 8 - width)
    at = {"nose": (1, 2), "left_wrist": (places[2], 3), "right_wrist": (places[3], 5)}  # row and column
    ids = np.zeros((1, 8, 8), np.uint8)
    for number, (row_, column) in enumerate(at.values(), 1):
        ids[0, row_, column] = number
    points = {joint: [(column + 0.5) / 8, (row_ + 0.5) / 8] for joint, (row_, column) in at.items()}
    person = {"box": [0.0, 0.0, 1.0, 1.0], "points": points, "score": 0.5}
    crop = row(top, left, height, width, flip)
    cropped = ids[0, top : top + height, left : left + width][:, :: -1 if flip else 1]
    instances = crop_values("keypoints", [{"instances": [person]}], crop, (8, 8))[0]["instances"]
    numbers = dict(zip(at, (1, 3, 2) if flip else (1, 2, 3), strict=True))  # left and right are exchanged
    if not instances:  # less of the box than `MIN_VISIBLE` is left
        assert height * width < 64 * MIN_VISIBLE
        return
    assert set(instances[0]["points"]) == {joint for joint, number in numbers.items() if number in cropped}
    for joint, (x, y) in instances[0]["points"].items():
        assert cropped[int(y * height), int(x * width)] == numbers[joint]


def test_boxes_stay_around_their_pixels():
    box = {"box": [0.25, 0.5, 0.5, 0.75], "class_name": "cone", "score": 1.0}
    away = {"box": [0.9, 0.0, 1.0, 0.1], "class_name": "box", "score": 1.0}
    crop = row(16, 16, 48, 32, 1)
    found = crop_values("det", [{"instances": [box, away]}], crop, (64, 64))[0]["instances"]
    assert [instance["class_name"] for instance in found] == ["cone"]
    mask = np.zeros((1, 64, 64), np.uint8)
    mask[:, 32:48, 16:32] = 1
    rows, columns = np.nonzero(crop_values("semseg", mask, crop)[0])
    framed = [columns.min() / 64, rows.min() / 64, (columns.max() + 1) / 64, (rows.max() + 1) / 64]
    np.testing.assert_allclose(found[0]["box"], framed, atol=1 / 64)
