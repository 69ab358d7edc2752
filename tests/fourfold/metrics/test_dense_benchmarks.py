"""Segmentation, depth and normals of benchmarks, compared with torchmetrics, scikit-learn and PyTorch."""

import numpy as np
import pytest
import torch

from fourfold.metrics.depth import DepthProtocol, DepthScorer, align, crop_mask, depth_errors
from fourfold.metrics.normals import NormalScorer
from fourfold.metrics.running import Bootstrap
from fourfold.metrics.segmentation import SegmentationScorer

FEW = Bootstrap(replicates=20)


def test_miou_with_ignored_pixels_equals_torchmetrics_over_images_of_different_sizes():
    from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

    rng = np.random.default_rng(0)
    scorer = SegmentationScorer(8, FEW)
    judge = MulticlassJaccardIndex(8, ignore_index=255)
    accuracies = [MulticlassAccuracy(8, average=how, ignore_index=255) for how in ("macro", "micro")]
    for height, width in ((20, 30), (7, 9), (40, 11)):
        truth = rng.integers(0, 7, (height, width))  # class 7 occurs in predictions alone, 6 in the truth alone
        predicted = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, 8, truth.shape))
        predicted[predicted == 6] = 5
        truth[rng.random(truth.shape) < 0.2] = 255
        scorer.add(predicted.astype(np.uint8), truth.astype(np.uint8))
        for each in (judge, *accuracies):
            each.update(torch.tensor(predicted)[None], torch.tensor(truth)[None])
    scores = scorer.scores()
    assert scores["miou"].value == pytest.approx(float(judge.compute()), abs=1e-6)
    assert scores["pixel_accuracy"].value == pytest.approx(float(accuracies[1].compute()), abs=1e-6)
    low, high = scores["miou"].interval
    assert low < scores["miou"].value < high
    each = scorer.iou_of_classes()
    assert each[6] == each[7] == 0 and np.nanmean(each) == pytest.approx(scores["miou"].value)


def test_a_class_that_occurs_nowhere_does_not_count_and_no_class_is_wrong():
    scorer = SegmentationScorer(3, FEW)
    scorer.add(np.array([[0, 255], [1, 1]]), np.array([[0, 0], [1, 255]]))
    assert scorer.iou_of_classes()[:2].tolist() == [0.5, 1.0] and np.isnan(scorer.iou_of_classes()[2])
    assert scorer.scores()["miou"].value == 0.75 and scorer.scores()["pixel_accuracy"].value == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="class id 3; allowed: 0 to 2 and 255"):
        scorer.add(np.zeros((1, 1)), np.full((1, 1), 3))
    with pytest.raises(ValueError, match="Resize the prediction"):
        scorer.add(np.zeros((2, 2)), np.zeros((1, 2)))


def depth_pair(rng, shape=(480, 640)):
    truth = rng.uniform(0.5, 12, shape)
    return truth * rng.lognormal(0, 0.3, shape), np.where(rng.random(shape) < 0.1, 0, truth)


def test_depth_errors_equal_scikit_learn():
    from sklearn.metrics import mean_absolute_percentage_error, root_mean_squared_error

    predicted, truth = depth_pair(np.random.default_rng(0))
    protocol = DepthProtocol("eigen_nyu")
    errors = depth_errors(predicted, truth, protocol)
    inside = np.s_[45:471, 41:601]
    predicted, truth = np.clip(predicted[inside], 1e-3, 10), truth[inside]
    counted = (truth > 1e-3) & (truth < 10)
    p, t = predicted[counted], truth[counted]
    assert errors["abs_rel"] == pytest.approx(mean_absolute_percentage_error(t, p), rel=1e-12)
    assert errors["rmse"] == pytest.approx(root_mean_squared_error(t, p), rel=1e-12)
    assert errors["rmse_log"] == pytest.approx(root_mean_squared_error(np.log(t), np.log(p)), rel=1e-12)
    assert errors["silog"] == pytest.approx(100 * np.std(np.log(p / t)), rel=1e-9)
    assert errors["log10"] == pytest.approx(np.abs(np.log10(p / t)).mean(), rel=1e-12)
    assert errors["delta1"] == pytest.approx(np.mean(np.abs(np.log(p / t)) < np.log(1.25)), rel=1e-12)
    assert errors["delta3"] > errors["delta2"] > errors["delta1"]


@pytest.mark.parametrize(("crop", "bounds"), [("garg", (153, 371, 44, 1197)), ("eigen_kitti", (124, 342, 44, 1197))])
def test_crops_of_kitti_are_those_of_monodepth2_and_bts(crop, bounds):
    rows, columns = np.nonzero(crop_mask(crop, 375, 1242))
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == bounds


def test_the_crop_of_nyu_needs_the_official_size():
    assert crop_mask("eigen_nyu", 480, 640).sum() == (471 - 45) * (601 - 41)
    with pytest.raises(ValueError, match="needs 480 x 640 pixels, got 240 x 320"):
        crop_mask("eigen_nyu", 240, 320)


def test_alignment_undoes_what_it_fits():
    truth = np.random.default_rng(0).uniform(1, 9, 500)
    assert align(3 * truth, truth, "median") == pytest.approx(truth)
    assert align(0.2 * truth - 0.1, truth, "scale_and_shift") == pytest.approx(truth)
    assert align(1 / (0.5 / truth + 0.02), truth, "inverse_scale_and_shift") == pytest.approx(truth)
    noisy = truth + np.random.default_rng(1).normal(0, 1, 500)
    slope, offset = np.polyfit(noisy, truth, 1)
    assert align(noisy, truth, "scale_and_shift") == pytest.approx(slope * noisy + offset)


def test_depth_is_averaged_over_images_and_empty_ones_are_counted():
    scorer = DepthScorer(DepthProtocol(max_depth=80), FEW)
    scorer.add(np.array([[np.nan, np.inf]]), np.array([[1.0, 40.0]]))  # clamped to 0.001 and 80
    scorer.add(np.full((1, 4), 2.0), np.full((1, 4), 2.0))
    assert scorer.add(np.ones((1, 2)), np.zeros((1, 2))) is None and scorer.left_out == 1
    assert scorer.scores()["abs_rel"].value == pytest.approx(((0.999 + 1) / 2 + 0) / 2)
    assert scorer.scores()["delta1"].value == 0.5
    with pytest.raises(ValueError, match="Resize the prediction"):
        scorer.add(np.ones((2, 2)), np.ones((2, 3)))


def test_normals_equal_those_of_pytorch():
    rng = np.random.default_rng(0)
    scorer, angles = NormalScorer(FEW), []
    for _ in range(3):
        truth = rng.normal(size=(30, 40, 3))
        predicted, valid = truth + rng.normal(0, 0.5, truth.shape), rng.random((30, 40)) < 0.8
        scorer.add(predicted, truth, valid)
        cosine = torch.cosine_similarity(torch.tensor(predicted[valid]), torch.tensor(truth[valid]), dim=1)
        angles.append(torch.rad2deg(torch.acos(cosine.clamp(-1, 1))))
    angle = torch.cat(angles)
    scores = scorer.scores()
    assert scores["mean"].value == pytest.approx(float(angle.mean()), rel=1e-9)
    assert scores["median"].value == pytest.approx(float(angle.quantile(0.5)), abs=0.005)
    assert scores["rmse"].value == pytest.approx(float(angle.square().mean().sqrt()), rel=1e-9)
    for limit in (5, 7.5, 11.25, 22.5, 30):
        assert scores[f"within_{limit:g}"].value == pytest.approx(float((angle < limit).double().mean()), rel=1e-12)
    assert scores["median"].interval[0] < scores["median"].value < scores["median"].interval[1]
    assert scorer.add(np.ones((2, 2, 3)), np.ones((2, 2, 3)), np.zeros((2, 2), bool)) is None
