"""Conversion of each label for its network and back: exact up to rounding, and depth stays metric."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fourfold.tokenizers.formats import dense_format, measure_statistics

images = hnp.arrays(np.uint8, (2, 4, 4, 3))
class_maps = hnp.arrays(np.uint8, (2, 4, 4), elements=st.integers(0, 5))
depths = hnp.arrays(np.float16, (2, 4, 4), elements=st.floats(0.5, 50, width=16))


def there_and_back(name: str, values: np.ndarray, num_classes: int = 6) -> np.ndarray:
    values_format = dense_format(name, measure_statistics(name, values), num_classes)
    inputs_BCHW = values_format.inputs(values)
    assert inputs_BCHW.shape[1] == values_format.channels and inputs_BCHW.dtype == torch.float32
    found = values_format.values(inputs_BCHW)
    assert found.dtype == values.dtype and found.shape == values.shape
    return found


@given(images)
def test_pixels_survive_exactly(values):
    np.testing.assert_array_equal(there_and_back("rgb", values), values)


@given(class_maps)
def test_classes_survive_exactly(values):
    np.testing.assert_array_equal(there_and_back("semseg", values), values)


@given(depths)
def test_meters_survive_to_storage_precision(values):
    np.testing.assert_allclose(there_and_back("depth", values), values, rtol=2e-3)


def test_depth_has_one_scale_for_all_images():
    near, far = np.full((1, 4, 4), 2, np.float16), np.full((1, 4, 4), 9, np.float16)
    statistics = measure_statistics("depth", np.concatenate([near, far]))
    values_format = dense_format("depth", statistics, 6)
    np.testing.assert_allclose(values_format.values(values_format.inputs(far)), far, rtol=2e-3)
    assert float(values_format.inputs(near).mean()) < 0 < float(values_format.inputs(far).mean())


def test_reconstructed_depth_stays_in_the_training_range():
    values = np.array([[[2, 4], [6, 8]]], np.float16)
    values_format = dense_format("depth", measure_statistics("depth", values), 6)
    found = values_format.values(torch.tensor([[[[-50.0, 50.0], [0.0, 0.0]]]]))
    assert found.min() == pytest.approx(2, rel=2e-3) and found.max() == pytest.approx(8, rel=2e-3)


def test_normals_have_unit_length_for_any_network_output():
    output_BCHW = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 3
    vectors = dense_format("normal", {}, 6).values(output_BCHW) / 127.5 - 1
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1, atol=0.01)
    expected = F.normalize(output_BCHW, dim=1).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(vectors, expected, atol=0.005)


def test_features_are_standardized_and_survive():
    values = np.random.default_rng(0).normal(3, 2, (5, 4, 4, 7)).astype(np.float16)
    inputs_BCHW = dense_format("clip", measure_statistics("clip", values), 6).inputs(values)
    np.testing.assert_allclose(inputs_BCHW.mean((0, 2, 3)), 0, atol=1e-4)
    np.testing.assert_allclose(inputs_BCHW.std((0, 2, 3), correction=0), 1, atol=1e-3)
    np.testing.assert_allclose(there_and_back("clip", values), values, atol=0.01)


def test_pixels_without_a_label_have_no_loss():
    values = np.array([[[0, 1], [255, 255]], [[2, 255], [0, 0]]], np.uint8)
    values_format = dense_format("semseg", {}, 6)
    inputs_BCHW, output_BCHW = values_format.inputs(values), torch.randn(2, 6, 2, 2, generator=torch.Generator().manual_seed(0))
    assert inputs_BCHW.sum() == 5
    expected = F.cross_entropy(output_BCHW, torch.from_numpy(values.astype(np.int64)), ignore_index=255)
    torch.testing.assert_close(values_format.loss(output_BCHW, inputs_BCHW), expected)
    assert values_format.loss(output_BCHW, torch.zeros_like(output_BCHW)) == 0


def test_class_id_out_of_range_raises():
    with pytest.raises(ValueError, match="Class id 6 is out of range; allowed: 0 to 5"):
        dense_format("semseg", {}, 6).inputs(np.full((1, 2, 2), 6, np.uint8))
