"""Joints: the similarity against COCO's evaluation code, and what an image without people counts."""

import contextlib
import io

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.metrics.keypoints import keypoint_similarity, keypoint_statistics, mean_person
from fourfold.metrics.statistics import values
from fourfold.modalities.keypoints import JOINTS, LIMBS, mirrored

NOBODY = {"instances": []}
shares = st.floats(0, 1, width=16)


def person(rng: np.random.Generator, num_joints: int = 17) -> dict:
    points = {joint: rng.uniform(0.2, 0.8, 2).round(4).tolist() for joint in rng.permutation(JOINTS)[:num_joints]}
    places = np.array(list(points.values()))
    return {"box": [*places.min(axis=0).tolist(), *places.max(axis=0).tolist()], "points": points}


def coco_similarity(predicted: dict, truth: dict) -> float:
    """Let COCO's code compare two people in an image of 100 × 100 pixels."""

    def flat(points: dict) -> list[float]:
        return [
            number for joint in JOINTS for number in (*(100 * np.array(points.get(joint, (1e6, 1e6)))), 2 * (joint in points))
        ]

    box = np.array(truth["box"]) * 100
    size = box[2:] - box[:2]
    one = {"image_id": 1, "category_id": 1}
    annotation = {
        "id": 1,
        "area": float(size.prod()),
        "bbox": [*box[:2], *size],
        "iscrowd": 0,
        "keypoints": flat(truth["points"]),
    }
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(
            {
                "images": [{"id": 1, "width": 100, "height": 100}],
                "categories": [{"id": 1, "name": "person"}],
                "annotations": [one | annotation | {"num_keypoints": len(truth["points"])}],
            }
        )
        found = known.loadRes([one | {"keypoints": flat(predicted["points"]), "score": 1.0}])
        judge = COCOeval_faster(known, found, "keypoints", print_function=lambda *_: None)
        judge.params.imgIds, judge.params.catIds = [1], [1]
        judge._prepare()
        return float(np.squeeze(judge.computeOks(1, 1)))


@pytest.mark.parametrize("seed", range(5))
def test_similarity_equals_that_of_coco(seed):
    rng = np.random.default_rng(seed)
    truth = person(rng, 17 - seed)
    moved = {joint: (np.array(place) + rng.normal(0, 0.03, 2)).tolist() for joint, place in truth["points"].items()}
    predicted = {"box": truth["box"], "points": moved}
    assert keypoint_similarity(predicted, truth) == pytest.approx(coco_similarity(predicted, truth), abs=1e-9)


@settings(max_examples=40)
@given(st.integers(0, 999), st.integers(1, 17))
def test_equal_people_are_similar_and_others_less(seed, num_joints):
    truth = person(np.random.default_rng(seed), num_joints)
    assert keypoint_similarity(truth, truth) == pytest.approx(1)
    half = {"points": dict(list(truth["points"].items())[: num_joints // 2])}
    assert keypoint_similarity(half, truth) == pytest.approx(num_joints // 2 / num_joints)


def test_images_without_people_have_no_similarity():
    rng = np.random.default_rng(0)
    one, two = ({"instances": [person(rng)]} for _ in range(2))
    both = {"instances": [*one["instances"], *two["instances"]]}
    found = values(keypoint_statistics([one, NOBODY, one, NOBODY], [both, one, NOBODY, NOBODY]))
    assert found["people_f1"] == 0.5  # one image of two is found, and one of two predicted ones is right
    assert 0.25 <= found["oks"] < 0.5  # one of two people in the first image, none in the second
    assert np.isnan(values(keypoint_statistics([one], [NOBODY]))["oks"])
    assert all(map(np.isnan, values(keypoint_statistics([NOBODY], [NOBODY])).values()))


def test_the_mean_person_has_the_mean_of_each_joint():
    first, second = ({"box": [0, 0, side, side], "points": {"nose": [side, 0]}} for side in (0.2, 0.4))
    answer = mean_person(
        [{"instances": [first]}, NOBODY, {"instances": [second | {"points": {"nose": [0.4, 0], "left_hip": [1, 1]}}]}]
    )
    (average,) = answer["instances"]
    assert average["points"]["nose"] == pytest.approx([0.3, 0]) and average["points"]["left_hip"] == [1, 1]
    assert average["box"] == pytest.approx([0, 0, 0.3, 0.3])
    assert mean_person([NOBODY]) == NOBODY


def test_mirrored_joints_and_limbs_are_joints():
    assert [mirrored(mirrored(joint)) for joint in JOINTS] == list(JOINTS)
    assert mirrored("nose") == "nose" and mirrored("left_ear") == "right_ear"
    assert {joint for limb in LIMBS for joint in limb} == set(JOINTS)
