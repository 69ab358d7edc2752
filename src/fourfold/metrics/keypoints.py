"""Similarity of people's joints: COCO's object keypoint similarity (https://cocodataset.org/#keypoints-eval)."""

# J joints, P people

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fourfold.metrics.statistics import Statistic, f1, mean
from fourfold.modalities.keypoints import JOINTS

People = Mapping[str, Sequence[Mapping[str, Any]]]  # {"instances": [{"box": 0-1, "points": {"nose": [x, y], ...}}, ...]}
# How far apart the marks of several annotators are, by joint, for a person whose area is 1
DEVIATION_J = np.array(
    [0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089]
)


def keypoint_similarity(predicted: Mapping[str, Any], truth: Mapping[str, Any]) -> float:
    """Return the similarity of a person to a true one, 0 to 1: the mean over the true joints of exp(−d² / (2 · area · (2σ)²)).

    A joint that is not predicted counts 0. COCO takes the area of the mask; here it is that of the true box.
    """
    (xmin, ymin, xmax, ymax), points = truth["box"], truth["points"]
    area = (xmax - xmin) * (ymax - ymin) + np.spacing(1)
    found = [
        np.exp(-((np.subtract(predicted["points"][joint], point) ** 2).sum()) / (2 * area * (2 * deviation) ** 2))
        for joint, deviation in zip(JOINTS, DEVIATION_J, strict=True)
        if (point := points.get(joint)) is not None and joint in predicted["points"]
    ]
    return float(np.sum(found)) / len(points)


def keypoint_statistics(predicted: Sequence[People], truth: Sequence[People]) -> dict[str, Statistic]:
    """Return `oks` and `people_f1` of images.

    `oks` is the mean over the images with true people of the similarity of each of them to the predicted one that is most
    similar; `people_f1` the F1 of the images with predicted people against those with true people.
    """
    similarity = [_similarity(*pair) for pair in zip(predicted, truth, strict=True)]
    ours, theirs = (np.array([bool(people["instances"]) for people in each], bool) for each in (predicted, truth))
    comparable = [any(person["points"] for person in people["instances"]) for people in truth]
    return {"oks": mean(similarity, comparable), "people_f1": f1(ours & theirs, ours, theirs)}


def _similarity(predicted: People, truth: People) -> float:
    best = [
        max((keypoint_similarity(one, person) for one in predicted["instances"]), default=0.0)
        for person in truth["instances"]
        if person["points"]
    ]
    return float(np.mean(best)) if best else 0.0


def mean_person(samples: Sequence[People]) -> People:
    """Return one answer for all images: a person with the mean place of each joint; nobody where there are no people."""
    people = [person for sample in samples for person in sample["instances"] if person["points"]]
    if not people:
        return {"instances": []}
    places = {joint: [person["points"][joint] for person in people if joint in person["points"]] for joint in JOINTS}
    points = {joint: np.mean(found, axis=0).tolist() for joint, found in places.items() if found}
    return {"instances": [{"box": np.mean([person["box"] for person in people], axis=0).tolist(), "points": points}]}
