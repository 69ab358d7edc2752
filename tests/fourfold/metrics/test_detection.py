"""COCO and VOC average precision, compared with faster-coco-eval and with the VOC evaluation of py-faster-rcnn."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from fourfold.metrics.detection import CocoScorer, Detections, TrueBoxes, VocScorer
from fourfold.metrics.running import Bootstrap

VOC = json.loads((Path(__file__).parents[2] / "reference/benchmark_metrics.json").read_text())["voc"]
STATS = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")


def random_images(rng: np.random.Generator, count: int) -> list[tuple[Detections, TrueBoxes]]:
    """Return images with objects of all sizes, crowds, masks smaller than boxes, misses, doubles and equal scores."""
    images = []
    for _ in range(count):
        number = int(rng.integers(0, 7))
        corner, size = (
            rng.uniform(0, 300, (number, 2)),
            rng.choice([12, 50, 150], (number, 1)) * rng.uniform(0.6, 1.3, (number, 2)),
        )
        box, classes = np.hstack([corner, corner + size]), rng.integers(0, 4, number)
        truth = TrueBoxes(box, classes, np.prod(size, axis=1) * rng.uniform(0.5, 1, number), rng.random(number) < 0.15)
        chosen = rng.integers(0, max(number, 1), int(rng.integers(0, 9)) if number else 0)
        found_box = np.vstack([box[chosen] + rng.normal(0, 5, (len(chosen), 4)), rng.uniform(0, 100, (2, 4))])
        found_box[:, 2:] = np.maximum(found_box[:, 2:], found_box[:, :2] + 1)
        found_class = np.append(np.where(rng.random(len(chosen)) < 0.9, classes[chosen], 3), [0, 1])
        images.append((Detections(found_box, found_class, np.round(rng.random(len(found_box)), 2)), truth))
    return images


def judged(images: list[tuple[Detections, TrueBoxes]]) -> np.ndarray:
    """Return the first six numbers of COCO's evaluator."""

    def bbox(box: np.ndarray) -> list[float]:
        return [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])]

    truths, found = [], []
    for image, (detections, truth) in enumerate(images, 1):
        rows = zip(truth.box_G4, truth.class_G, truth.area_G, truth.ignored_G, strict=True)
        truths += [
            {"image_id": image, "category_id": int(k) + 1, "bbox": bbox(b), "area": float(a), "iscrowd": int(c)}
            for b, k, a, c in rows
        ]
        rows = zip(detections.box_D4, detections.class_D, detections.score_D, strict=True)
        found += [{"image_id": image, "category_id": int(k) + 1, "bbox": bbox(b), "score": float(s)} for b, k, s in rows]
    truths = [{**t, "id": number} for number, t in enumerate(truths, 1)]
    with contextlib.redirect_stdout(io.StringIO()):
        entries = [{"id": i, "width": 500, "height": 500} for i in range(1, len(images) + 1)]
        coco = COCO({"images": entries, "annotations": truths, "categories": [{"id": i, "name": str(i)} for i in range(1, 5)]})
        evaluator = COCOeval_faster(coco, coco.loadRes(found), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return np.array(evaluator.stats[:6])


@pytest.mark.parametrize("seed", range(3))
def test_coco_ap_equals_the_evaluator_of_coco(seed):
    images = random_images(np.random.default_rng(seed), 60)
    scorer = CocoScorer(Bootstrap(replicates=20))
    for image in images:
        scorer.add(*image)
    scores = scorer.scores()
    assert [scores[name].value for name in STATS] == pytest.approx(judged(images), abs=1e-9)
    low, high = scores["ap50"].interval
    assert low < scores["ap50"].value < high


def test_coco_without_objects_of_a_size_has_no_score():
    scorer = CocoScorer(Bootstrap(replicates=5))
    one = np.array([[0.0, 0, 10, 10]])
    scorer.add(Detections(one, np.zeros(1), np.ones(1)), TrueBoxes(one, np.zeros(1), np.array([100.0]), np.zeros(1, bool)))
    scorer.add(Detections(one, np.ones(1), np.ones(1)), TrueBoxes(one[:0], np.zeros(0), np.zeros(0), np.zeros(0, bool)))
    scores = scorer.scores()
    assert scores["ap"].value == scores["ap_small"].value == 1 and np.isnan(scores["ap_large"].value)
    assert np.isnan(CocoScorer(Bootstrap()).scores()["ap"].value)


@pytest.mark.parametrize(("eleven_points", "expected"), [(True, VOC["ap_2007"]), (False, VOC["ap_2012"])])
def test_voc_ap_equals_the_evaluation_of_py_faster_rcnn(eleven_points, expected):
    scorer = VocScorer(Bootstrap(replicates=20), eleven_points)
    for found, truth in zip(VOC["found"], VOC["truth"], strict=True):
        f, t = np.array(found, float).reshape(-1, 6), np.array(truth, float).reshape(-1, 6)
        boxes = TrueBoxes(t[:, :4], t[:, 4].astype(int), np.zeros(len(t)), t[:, 5] > 0)
        scorer.add(Detections(f[:, :4], f[:, 4].astype(int), f[:, 5]), boxes)
    each = scorer.precision_of_classes()
    assert [float(each[k][0]) for k in range(3)] == pytest.approx(expected, abs=1e-12)
    score = scorer.scores()["ap50"]
    assert score.value == pytest.approx(np.mean(expected)) and score.interval[0] < score.value < score.interval[1]
