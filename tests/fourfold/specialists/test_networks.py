"""Networks of specialists: sizes, conversion of labels, mirroring, and that each learns a batch."""

import numpy as np
import pytest
import torch

from fourfold.labelers.fitting import FitConfig
from fourfold.metrics.boxes import average_precision_50
from fourfold.metrics.dense import depth_errors, miou
from fourfold.modalities.class_table import ClassTable
from fourfold.specialists.dense import SegmentationUNet, UNetConfig, survey_depth
from fourfold.specialists.detectors import DetectorConfig, build_faster_rcnn, build_fcos
from fourfold.specialists.fitting import fit
from fourfold.specialists.protocol import LabeledImages, mirrored_boxes, mirrored_maps
from fourfold.specialists.registry import SPECIALISTS
from fourfold.specialists.unet import UNet
from fourfold.training.run_context import RunContext
from tests.fourfold.specialists.tiny_scenes import labeled

SMALL = {"width": 8, "depth": 3}
SMALL_DETECTOR = {"widths": (8, 16, 32), "blocks": (1, 1, 1), "pyramid_width": 32, "head_convolutions": 1}
FACTS = {"classes": ["box", "cone"], "side": 32}


@pytest.mark.parametrize(("height", "width"), [(32, 32), (30, 50), (8, 8)])
def test_the_unet_accepts_any_size(height, width):
    network = UNet(3, 4, 3)
    images = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8)
    assert network(images).shape == (2, 3, height, width)


def test_pixels_of_ignored_and_unknown_classes_have_no_loss():
    table = ClassTable(names=("a", "b"), ignored=(1,))
    network = SegmentationUNet(UNetConfig(**SMALL), table)
    images = torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    ids = np.full((1, 16, 16), 1, np.uint8)
    ids[0, :8] = 255
    assert network.losses(images, ids)["cross_entropy"].item() == 0
    ids[0, 0, 0] = 0
    with torch.no_grad():
        logits = network.network(images)[0, :, 0, 0]
    wanted = -torch.log_softmax(logits, 0)[0]
    assert network.losses(images, ids)["cross_entropy"].item() == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize("build", [build_faster_rcnn, build_fcos])
def test_boxes_are_converted_to_pixels_and_back(build):
    network = build(DetectorConfig(**SMALL_DETECTOR), FACTS).eval()
    images = torch.zeros(1, 32, 64, 3, dtype=torch.uint8)
    boxes = [[0.25, 0.5, 0.75, 1.0], [0.5, 0.5, 0.5, 0.75]]  # the second is empty
    value = {"instances": [{"box": box, "class_name": "cone"} for box in boxes]}
    target = network.target(value, images)
    assert target["boxes"].tolist() == [[16, 16, 48, 32]]
    label = target["labels"].item()
    network.detector.forward = lambda found: [
        {"boxes": target["boxes"], "labels": torch.tensor([label]), "scores": torch.tensor([0.75])} for _ in found
    ]
    assert network.predict(images) == [{"instances": [{"box": boxes[0], "class_name": "cone", "score": 0.75}]}]


def test_images_without_boxes_are_learned_from():
    images = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    for build in (build_faster_rcnn, build_fcos):
        losses = build(DetectorConfig(**SMALL_DETECTOR), FACTS).losses(images, [{"instances": []}] * 2)
        assert all(loss.isfinite() for loss in losses.values())


def test_predictions_that_overlap_are_suppressed_by_class():
    network = build_fcos(DetectorConfig(**SMALL_DETECTOR, max_overlap=0.3, min_score=0.0), FACTS).eval()
    with torch.inference_mode():
        (found,) = network.predict(torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8))
    instances = found["instances"]
    from torchvision.ops import batched_nms

    boxes, scores = (torch.tensor([i[key] for i in instances]) for key in ("box", "score"))
    classes = torch.tensor([FACTS["classes"].index(i["class_name"]) for i in instances])
    assert len(instances) > 1 and scores.tolist() == sorted(scores.tolist(), reverse=True)
    assert sorted(batched_nms(boxes, scores, classes, 0.31).tolist()) == list(range(len(instances)))


def test_mirroring_twice_changes_nothing_and_once_swaps_the_sides():
    is_mirrored = np.array([True, False])
    maps = np.arange(12).reshape(2, 2, 3)
    assert mirrored_maps(maps, is_mirrored)[0].tolist() == [[2, 1, 0], [5, 4, 3]]
    assert (mirrored_maps(mirrored_maps(maps, is_mirrored), is_mirrored) == maps).all()
    values = [{"instances": [{"box": [0.125, 0.25, 0.5, 0.75], "class_name": "box", "score": 1.0}]}] * 2
    mirrored = mirrored_boxes(values, is_mirrored)
    assert mirrored[0]["instances"][0] == {"box": [0.5, 0.25, 0.875, 0.75], "class_name": "box", "score": 1.0}
    assert mirrored[1] == values[1] and mirrored_boxes(mirrored, is_mirrored) == values


def test_labels_that_teach_nothing_are_an_error():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="No pixel of the labels 'depth' is positive"):
        survey_depth(LabeledImages(images, np.zeros((2, 8, 8))))
    for name, message in (("faster_rcnn", "No image has a box"), ("unet_segmentation", "no class table")):
        with pytest.raises(ValueError, match=message):
            SPECIALISTS.get(name).survey(LabeledImages(images, [{"instances": []}] * 2))


def quality(target: str, predicted, truth: LabeledImages) -> float:
    """Return a number that is high for good predictions."""
    if target == "det":
        return average_precision_50(predicted, truth.values)
    if target == "semseg":
        return miou(predicted, truth.values, 6)
    valid = truth.values < 50  # not the sky
    return -depth_errors(predicted, truth.values, valid)["abs_rel"]


@pytest.mark.parametrize(
    ("name", "settings", "steps", "enough"),
    [  # a constant depth has -0.43, and one class everywhere 0.1
        ("unet_depth", SMALL, 80, -0.2),
        ("unet_segmentation", SMALL, 80, 0.6),
        ("faster_rcnn", SMALL_DETECTOR, 50, 0.8),
        ("fcos", SMALL_DETECTOR, 50, 0.8),
    ],
)
def test_a_specialist_learns_one_batch(name, settings, steps, enough):
    specialist = SPECIALISTS.get(name)
    data = labeled(specialist.target, 4 if specialist.target == "det" else 8)
    config = specialist.config_class(**settings, flip=0, fit=FitConfig(steps=steps, batch_size=8))
    _, costs, network = fit(specialist, data, config, name, RunContext(0))
    with torch.inference_mode():
        found = quality(specialist.target, network.predict(torch.from_numpy(data.rgb)), data)
    assert found > enough, found
    assert costs["steps"] == steps and costs["samples"] == len(data) * steps and costs["seconds"] > 0
