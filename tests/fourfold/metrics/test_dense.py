"""Metrics of images and features, compared with independent implementations."""

import numpy as np
import pytest
import torch

from fourfold.metrics import dense as metrics
from fourfold.metrics.statistics import f1, value


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_depth_errors_exclude_invalid_pixels(rng):
    truth = rng.uniform(1, 10, (3, 8, 8)).astype(np.float16)
    predicted = (truth * rng.uniform(0.6, 1.5, truth.shape)).astype(np.float16)
    valid = rng.random(truth.shape) < 0.6
    predicted[~valid] = 0
    p, t = predicted[valid].astype(float), truth[valid].astype(float)
    found = metrics.depth_errors(predicted, truth, valid)
    assert found["abs_rel"] == pytest.approx(np.mean(np.abs(p - t) / t))
    assert found["delta1"] == pytest.approx(np.mean(np.maximum(p / t, t / p) < 1.25))


def test_the_angle_of_rotated_normals_is_the_rotation():
    truth = np.tile([0.0, 0.0, -1.0], (2, 4, 4, 1))
    turned = np.tile([0.0, np.sin(np.pi / 6), -np.cos(np.pi / 6)], (2, 4, 4, 1))
    everywhere = np.ones((2, 4, 4), bool)
    assert metrics.normal_angles(turned * 3, truth, everywhere)["mean_angle"] == pytest.approx(30)
    stored = np.round(turned * 127.5 + 127.5).astype(np.uint8)
    found = metrics.normal_angles(stored, truth, everywhere, objects=np.arange(4) < np.full((2, 4, 4), 2))
    assert found["mean_angle_objects"] == pytest.approx(30, abs=0.5)


def test_confusion_equals_that_of_scikit_learn(rng):
    from sklearn.metrics import confusion_matrix

    truth, predicted = rng.integers(0, 6, (2, 4, 9, 9))
    for sample, matrix in enumerate(metrics.confusion(predicted, truth, 6)):
        reference = confusion_matrix(truth[sample].ravel(), predicted[sample].ravel(), labels=range(6))
        np.testing.assert_array_equal(matrix, reference)


def test_miou_equals_that_of_torchmetrics(rng):
    from torchmetrics.classification import MulticlassJaccardIndex

    truth = rng.integers(0, 6, (4, 16, 16)).astype(np.uint8)
    predicted = np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(0, 6, truth.shape)).astype(np.uint8)
    reference = MulticlassJaccardIndex(6, average=None)(torch.tensor(predicted.astype(int)), torch.tensor(truth.astype(int)))
    assert metrics.miou(predicted, truth, 6) == pytest.approx(float(reference.mean()), abs=1e-6)
    assert metrics.miou(predicted, truth, 6, classes=[2, 3, 4, 5]) == pytest.approx(float(reference[2:].mean()), abs=1e-6)


def test_absent_classes_do_not_enter_the_mean():
    truth = np.zeros((1, 4, 4), np.uint8)
    assert metrics.miou(truth, truth, 6) == 1.0


def test_psnr_equals_that_of_torchmetrics(rng):
    from torchmetrics.functional.image import peak_signal_noise_ratio

    truth = rng.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    predicted = np.clip(truth + rng.normal(0, 20, truth.shape), 0, 255).astype(np.uint8)
    each = [
        peak_signal_noise_ratio(torch.tensor(p).double(), torch.tensor(t).double(), data_range=255.0)
        for p, t in zip(predicted, truth, strict=True)
    ]
    assert metrics.psnr(predicted, truth) == pytest.approx(float(np.mean(each)), abs=1e-4)
    assert metrics.psnr(truth, truth) == pytest.approx(100)


@pytest.mark.parametrize("k", [1, 5])
def test_recall_at_k_equals_the_hit_rate_of_torchmetrics(rng, k):
    from torchmetrics.functional.retrieval import retrieval_hit_rate

    gallery = rng.normal(size=(40, 8))
    queries = gallery + rng.normal(0, 1.0, gallery.shape)
    a, b = (torch.nn.functional.normalize(torch.tensor(x), dim=1) for x in (queries, gallery))
    reference = [retrieval_hit_rate(row, torch.arange(40) == i, top_k=k) for i, row in enumerate(a @ b.T)]
    assert metrics.recall_at_k(queries, gallery, k) == pytest.approx(float(np.mean([float(j) for j in reference])))


def test_constant_features_have_recall_at_chance_level():
    assert metrics.recall_at_k(np.ones((50, 4)), np.ones((50, 4)), k=10) == pytest.approx(10 / 50)


def test_f1_equals_the_micro_average_of_scikit_learn(rng):
    from sklearn.metrics import f1_score

    truth, predicted = rng.random((2, 30, 5)) < 0.4
    ours = value(f1((truth & predicted).sum(1), predicted.sum(1), truth.sum(1)))
    assert ours == pytest.approx(f1_score(truth, predicted, average="micro"))


def test_misaligned_arrays_are_an_error():
    with pytest.raises(ValueError, match="same samples"):
        metrics.miou(np.zeros((2, 4, 4), int), np.zeros((3, 4, 4), int), 6)
