"""Compare our bootstrap and AP50 with the libraries that could compute them.

    python benchmarks/bootstrap.py            # 1,000 samples, 1,000 replicates; a minute on one core

Prints seconds of the confidence interval of an mIoU, by `fourfold.metrics.statistics` and by `scipy.stats.bootstrap`, and of
an AP50, by `fourfold.metrics.boxes` and by faster-coco-eval once per replicate. The libraries run with a tenth and a
hundredth of the replicates; their times are scaled to all.
"""

import argparse
import contextlib
import io
import json
import time
from collections.abc import Callable

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from scipy.stats import bootstrap

from fourfold.metrics.boxes import average_precision_statistic
from fourfold.metrics.dense import mean_iou, segmentation_statistics
from fourfold.metrics.statistics import confidence_interval

NAMES = ("sphere", "box", "cylinder", "cone")
NUM_CLASSES = 6


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def miou_seconds(samples: int, replicates: int, rng: np.random.Generator) -> dict[str, float]:
    """Return seconds of one confidence interval of the mIoU of class maps (samples, 64, 64)."""
    truth = rng.integers(0, NUM_CLASSES, (samples, 64, 64)).astype(np.uint8)
    predicted = np.where(rng.random(truth.shape) < 0.8, truth, 0).astype(np.uint8)
    statistic = segmentation_statistics(predicted, truth, NUM_CLASSES, [2, 3, 4, 5])["miou"]
    sums_NCC = statistic.sums.reshape(-1, NUM_CLASSES, NUM_CLASSES)  # type: ignore[attr-defined]
    indices, few = (np.arange(samples),), max(replicates // 10, 10)

    def miou_of(chosen: np.ndarray) -> float:
        return float(mean_iou(sums_NCC[chosen].sum(axis=0)))

    scipy_seconds = seconds(lambda: bootstrap(indices, miou_of, n_resamples=few, vectorized=False, method="percentile"))
    return {
        "miou/fourfold": seconds(lambda: confidence_interval(statistic, 0, "miou", replicates)),
        "miou/scipy": scipy_seconds * replicates / few,
    }


def ap50_seconds(samples: int, replicates: int, rng: np.random.Generator) -> dict[str, float]:
    """Return seconds of one confidence interval of AP50 with three boxes and four detections per image."""

    def boxes(count: int) -> list[dict]:
        corners, sides = rng.uniform(0, 0.6, (count, 2)), rng.uniform(0.1, 0.4, (count, 2))
        scores, names = rng.random(count), rng.choice(NAMES, count)
        rows = zip(np.hstack([corners, corners + sides]).tolist(), names, scores, strict=True)
        return [{"box": box, "class_name": str(name), "score": float(score)} for box, name, score in rows]

    truths = [{"instances": boxes(3)} for _ in range(samples)]
    predictions = [{"instances": [*truth["instances"][:2], *boxes(2)]} for truth in truths]
    few = max(replicates // 100, 3)
    library = seconds(lambda: [coco_ap50(predictions, truths) for _ in range(few)])

    def ours() -> None:
        confidence_interval(average_precision_statistic(predictions, truths), 0, "ap50", replicates)

    return {"ap50/fourfold": seconds(ours), "ap50/faster-coco-eval": library * replicates / few}


def coco_ap50(predictions: list[dict], truths: list[dict]) -> float:
    """Return AP50 by faster-coco-eval."""

    def entries(samples: list[dict]) -> list[dict]:
        found = []
        for image, sample in enumerate(samples, 1):
            for instance in sample["instances"]:
                x0, y0, x1, y1 = (1000 * c for c in instance["box"])
                box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
                ids = {"id": len(found) + 1, "image_id": image, "category_id": 1 + NAMES.index(instance["class_name"])}
                found.append({**ids, **box, "score": instance["score"]})
        return found

    with contextlib.redirect_stdout(io.StringIO()):
        images = [{"id": i, "width": 1000, "height": 1000} for i in range(1, len(truths) + 1)]
        categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)]
        truth = COCO({"images": images, "annotations": entries(truths), "categories": categories})
        evaluator = COCOeval_faster(truth, truth.loadRes(entries(predictions)), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return float(evaluator.stats[1])


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--replicates", type=int, default=1000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    found = miou_seconds(options.samples, options.replicates, rng) | ap50_seconds(options.samples, options.replicates, rng)
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
