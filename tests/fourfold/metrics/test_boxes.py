"""AP50, compared with the COCO evaluator."""

import contextlib
import io

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from fourfold.metrics.boxes import average_precision_50, average_precision_statistic, box_iou
from fourfold.metrics.statistics import value

NAMES = ["sphere", "box", "cylinder"]


def random_boxes(rng: np.random.Generator, max_boxes: int) -> list[dict]:
    boxes = []
    for _ in range(rng.integers(0, max_boxes + 1)):
        x, y = rng.uniform(0, 0.6, 2)
        width, height = rng.uniform(0.15, 0.4, 2)
        boxes.append({"box": [x, y, x + width, y + height], "class_name": str(rng.choice(NAMES))})
    return boxes


def detect(rng: np.random.Generator, truth: list[dict]) -> list[dict]:
    found = [{**t, "box": [c + rng.normal(0, 0.03) for c in t["box"]]} for t in truth if rng.random() < 0.8]
    found += [dict(f) for f in found[:1]] + random_boxes(rng, 2)
    return [{**f, "score": float(rng.random())} for f in found]


def coco_ap50(predictions: list[dict], truths: list[dict]) -> float:
    def entry(instance: dict, image: int, number: int) -> dict:
        x0, y0, x1, y1 = (1000 * c for c in instance["box"])
        size = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
        return {"id": number, "image_id": image, "category_id": 1 + NAMES.index(instance["class_name"]), **size}

    def entries(samples: list[dict]) -> list[dict]:
        pairs = [(image, i) for image, sample in enumerate(samples, 1) for i in sample["instances"]]
        return [{**entry(i, image, number), "score": i.get("score", 1)} for number, (image, i) in enumerate(pairs, 1)]

    with contextlib.redirect_stdout(io.StringIO()):
        images = [{"id": i, "width": 1000, "height": 1000} for i in range(1, len(truths) + 1)]
        categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)]
        truth = COCO({"images": images, "annotations": entries(truths), "categories": categories})
        evaluator = COCOeval_faster(truth, truth.loadRes(entries(predictions)), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return float(evaluator.stats[1])


@pytest.mark.parametrize("seed", range(4))
def test_ap50_equals_that_of_coco(seed):
    rng = np.random.default_rng(seed)
    truths = [{"instances": random_boxes(rng, 4)} for _ in range(40)]
    predictions = [{"instances": detect(rng, t["instances"])} for t in truths]
    assert average_precision_50(predictions, truths) == pytest.approx(coco_ap50(predictions, truths), abs=1e-6)


def test_a_weight_of_two_equals_a_repeated_image():
    rng = np.random.default_rng(11)
    truths = [{"instances": random_boxes(rng, 3)} for _ in range(12)]
    predictions = [{"instances": detect(rng, t["instances"])} for t in truths]
    weights = np.array([2.0, 0.0, 1.0] * 4)
    repeated = [i for i, w in enumerate(weights) for _ in range(int(w))]
    ours = average_precision_statistic(predictions, truths).weighted(weights[None])[0]
    twice = average_precision_50([predictions[i] for i in repeated], [truths[i] for i in repeated])
    assert ours == pytest.approx(twice, abs=0.02)  # equal scores are one point of the curve here, two there


def test_perfect_boxes_score_one_and_missing_boxes_zero():
    truths = [{"instances": [{"box": [0.1, 0.1, 0.5, 0.5], "class_name": "box"}]}, {"instances": []}]
    assert average_precision_50(truths, truths) == pytest.approx(1)
    assert average_precision_50([{"instances": []}] * 2, truths) == 0
    assert np.isnan(value(average_precision_statistic([{"instances": []}], [{"instances": []}])))


def test_iou_equals_values_computed_by_hand():
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 6, 6]], float)
    np.testing.assert_allclose(box_iou(boxes, boxes)[0], [1, 1 / 7, 0])
