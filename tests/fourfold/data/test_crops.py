"""Crops: all labels of a sample are cropped by the same window."""

import numpy as np
import pytest

from fourfold.data.crops import CropConfig, crop_values, draw_crops
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
