"""Labels of several teachers, combined: by known answers and by properties."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fourfold.data.ingestion.sources.files import safe_key
from fourfold.labelers import LABELERS, Labeler, LabelingConfig
from fourfold.labelers.fusion.combining import aligned, fuse_boxes, fuse_depths, vote

RNG = np.random.default_rng(0)


def instance(name: str, score: float, *box: float) -> dict[str, Any]:
    return {"class_name": name, "score": score, "box": list(box)}


def test_relative_depths_are_aligned_before_the_median() -> None:
    """Two of three teachers know the depth up to scale and shift of its inverse; the third is noise."""
    depth_HW = RNG.uniform(1, 10, (12, 16))
    scaled, noise = 1 / (0.3 / depth_HW + 0.2), RNG.uniform(1, 10, (12, 16))
    fused_HW, agreement = fuse_depths([depth_HW, scaled])
    np.testing.assert_allclose(fused_HW, depth_HW, rtol=1e-4)
    assert agreement == 1
    fused_HW, agreement = fuse_depths([depth_HW, scaled, noise])
    np.testing.assert_allclose(fused_HW, depth_HW, rtol=1e-4)
    assert agreement < 0.5


def test_an_alignment_ignores_a_few_wild_pixels() -> None:
    reference_P = RNG.uniform(0.1, 1, (1, 200))
    wild_P = 2 * reference_P - 0.1
    wild_P[0, :20] = 50
    np.testing.assert_allclose(aligned(wild_P, reference_P)[0, 20:], reference_P[0, 20:], rtol=0.05)
    np.testing.assert_allclose(aligned(np.ones((2, 3)), np.arange(6.0).reshape(2, 3)), 2.5)


def test_most_votes_win_and_the_first_teacher_breaks_ties() -> None:
    teachers = [np.array([[0, 0, 1, 255]]), np.array([[1, 1, 2, 2]]), np.array([[1, 2, 0, 255]])]
    winner, agreement = vote(teachers, (1, 1, 1), 3)
    assert winner.tolist() == [[1, 0, 1, 2]]
    np.testing.assert_allclose(agreement, [[2 / 3, 1 / 3, 1 / 3, 1 / 3]])
    assert vote(teachers, (3, 1, 1), 3)[0].tolist() == [[0, 0, 1, 2]]


def test_boxes_of_the_same_object_become_their_weighted_mean() -> None:
    detectors = [
        [instance("car", 0.8, 0, 0, 0.4, 0.4), instance("dog", 0.5, 0.5, 0.5, 1, 1)],
        [instance("car", 0.4, 0, 0, 0.43, 0.4)],
    ]
    (car, car_name, car_score, car_share), (_, dog_name, dog_score, dog_share) = fuse_boxes(detectors, (1, 1), 0.55)
    np.testing.assert_allclose(car, [0, 0, (0.8 * 0.4 + 0.4 * 0.43) / 1.2, 0.4])
    assert (car_name, car_score) == ("car", pytest.approx(0.6))
    assert (dog_name, dog_score) == ("dog", pytest.approx(0.25))  # only one of two detectors sees it
    assert (car_share, dog_share) == (1, 0.5)
    ((_, _, first, _), (_, _, second, _)) = fuse_boxes(detectors, (2, 1), 0.55)
    assert (first, second) == (pytest.approx((2 * 0.8 + 0.4) / 2 * 2 / 3), pytest.approx(2 * 0.5 / 3))
    assert fuse_boxes([[], []], (1, 1), 0.55) == []


def test_boxes_of_other_classes_and_places_stay_apart() -> None:
    detectors = [
        [instance("car", 0.8, 0, 0, 0.4, 0.4)],
        [instance("bus", 0.7, 0, 0, 0.4, 0.4), instance("car", 0.6, 0.6, 0, 1, 0.4)],
    ]
    assert [entry[1] for entry in fuse_boxes(detectors, (1, 1), 0.55)] == ["bus", "car", "car"]


def fused(modality: str, *folders: Path, **settings: Any) -> Labeler:
    names = ["background", "car"]
    sections = [
        {"kind": "precomputed", "path": str(folder), **({"classes": names} if modality == "semseg" else {})}
        for folder in folders
    ]
    config = LabelingConfig.model_validate({"labelers": {modality: {"kind": "fusion", "of": sections, **settings}}})
    entry = LABELERS.get(config.labelers[modality])
    return entry(config.settings[entry.name])


def maps(folder: Path, **values: np.ndarray) -> Path:
    folder.mkdir()
    for name, array in values.items():
        Image.fromarray(array).save(folder / f"{name}.png")
    return folder


BATCH = {"__key__": [safe_key("a")], "rgb": np.zeros((1, 4, 4, 3), np.uint8)}


def test_teachers_are_named_in_the_configuration(tmp_path: Path) -> None:
    zeros, ones = np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8)
    half = np.where(np.arange(4) < 2, 0, 1).astype(np.uint8)[None].repeat(4, 0)
    folders = [maps(tmp_path / str(i), a=one) for i, one in enumerate((zeros, half, ones))]
    labeler = fused("semseg", *folders, min_agreement=0.5)
    np.testing.assert_array_equal(labeler.label(BATCH)[0].value, half)
    assert labeler.class_table(labeler.config).ignored == (255,)
    strict = fused("semseg", *folders[:2], min_agreement=0.9)
    assert strict.label(BATCH)[0].confidence == 0.75
    np.testing.assert_array_equal(strict.label(BATCH)[0].value, np.where(half, 255, 0))
    assert [one["model"] for one in labeler.origin()["of"]] == [str(folder) for folder in folders]


def test_depth_of_two_folders(tmp_path: Path) -> None:
    meters = np.arange(1, 17, dtype=np.uint16).reshape(4, 4)
    folders = [maps(tmp_path / str(i), a=meters * (i + 1)) for i in range(2)]
    np.testing.assert_allclose(fused("depth", *folders).label(BATCH)[0].value, meters, rtol=2e-3)


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    folder = maps(tmp_path / "a", a=np.ones((4, 4), np.uint8))
    with pytest.raises(ValueError, match="Give one above 0 for each"):
        fused("depth", folder, folder, weights=[1])
    section = {"kind": "fusion", "of": [{"kind": "precomputed", "pth": "x"}] * 2}
    config = LabelingConfig.model_validate({"labelers": {"depth": section}})
    with pytest.raises(ValueError, match="'precomputed_depth' in a fusion are wrong: path: Field required; pth: Extra"):
        LABELERS.get("fusion_depth")(config.settings["fusion_depth"])
