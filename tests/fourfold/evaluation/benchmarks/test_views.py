"""Parts of an image and their reassembly."""

import numpy as np
import pytest

from fourfold.evaluation.benchmarks.views import View, dense_classes, dense_values

IDENTITY = np.arange(256, dtype=np.uint8)


def image(height, width):
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)
    rgb[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    return rgb


@pytest.mark.parametrize("size", [(32, 96), (96, 32), (40, 40), (33, 71)])
@pytest.mark.parametrize("view", [View("windows", 32), View("windows", 32, (1.0, 0.5), flip=True), View("squash", 64)])
def test_what_every_part_sees_comes_back_to_its_place(size, view):
    rgb = image(*size)
    seen = dense_values(view, [rgb], lambda inputs: inputs.astype(np.float64))[0]
    assert seen.shape == rgb.shape and np.isfinite(seen).all()
    assert np.abs(seen - rgb)[2:-2, 2:-2].mean() < 4


def test_windows_cover_every_pixel_and_overlap():
    boxes = View("windows", 8, (1.0, 0.5), overlap=0.5).boxes(20, 47)
    covered = np.zeros((20, 47), int)
    for top, left, height, width in boxes:
        assert top >= 0 and left >= 0 and top + height <= 20 and left + width <= 47 and height == width
        covered[top : top + height, left : left + width] += 1
    assert covered.min() >= 2 and {box[2] for box in boxes} == {20, 10}


def test_a_crop_has_no_answer_outside_of_its_square():
    seen = dense_values(View("crop", 8), [image(10, 20)], lambda inputs: np.ones(inputs.shape[:3]))[0]
    assert np.isfinite(seen[:, 5:15]).all() and np.isnan(seen[:, :5]).all() and np.isnan(seen[:, 15:]).all()
    ids = dense_classes(View("crop", 8), [image(10, 20)], lambda inputs: np.ones(inputs.shape[:3], np.uint8), IDENTITY, 3)[0]
    assert (ids[:, 5:15] == 1).all() and (ids[:, :5] == 255).all()


def test_windows_vote_and_ties_take_the_lowest_class():
    def predict(inputs):
        return np.stack([np.full((4, 4), n % 2, np.uint8) for n in range(len(inputs))])

    ids = dense_classes(View("windows", 4, overlap=0.5), [image(8, 16)], predict, IDENTITY, 2)[0]
    assert ids[0].tolist() == [0] * 12 + [0] * 4 or set(np.unique(ids)) <= {0, 1}
    assert (ids[:, 4:8] == 0).all()  # windows 0 and 1 disagree
    nothing = dense_classes(View("windows", 4), [image(8, 16)], predict, np.full(256, 255, np.uint8), 2)[0]
    assert (nothing == 255).all()
