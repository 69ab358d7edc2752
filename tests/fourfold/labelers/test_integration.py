from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fourfold.data.shards import ShardSet, finish_split, write_columns
from fourfold.labelers import LabelingConfig, integrate_labels
from fourfold.labelers.integration import normal_angles_to_depth
from fourfold.modalities.camera import Camera
from fourfold.scenes.world import CLASS_NAMES, ScenesConfig, render, scene
from fourfold.scenes.world.writing import truth_columns

CONFIG = LabelingConfig()
SPHERE = CLASS_NAMES.index("sphere")


def labels_of_one(root: Path, **changed: Any) -> ShardSet:
    classes = np.full((32, 32), 1, np.uint8)
    classes[8:24, 8:24] = SPHERE
    normal = np.broadcast_to(np.array([128, 128, 0], np.uint8), (32, 32, 3))
    values = {"depth": np.full((32, 32), 4.0), "normal": normal, "semseg": classes, "det": {"instances": []}} | changed
    write_columns(root, "val", "shard-00000.tar", {name: [("a", value)] for name, value in values.items()})
    finish_split(root, "val", list(values))
    return ShardSet(root)


def box(name: str, score: float, sides: list[float]) -> dict:
    return {"box": sides, "class_name": name, "score": score}


def test_boxes_that_are_weak_or_contradict_the_segmentation_are_dropped_and_counted(tmp_path: Path) -> None:
    middle, corner = [0.25, 0.25, 0.75, 0.75], [0.0, 0.0, 0.2, 0.2]
    good = box("sphere", 0.9, middle)
    instances = [good, box("sphere", 0.1, middle), box("cone", 0.9, middle), box("sphere", 0.9, corner)]
    raw = labels_of_one(tmp_path / "raw", det={"instances": instances})
    integrated, report = integrate_labels(raw, raw, CONFIG, tmp_path / "integrated")
    assert integrated.load_column("val", "det") == [{"instances": [good]}]
    assert (report["val"]["boxes/kept"], report["val"]["boxes/dropped_score"], report["val"]["boxes/dropped_class"]) == (
        1,
        1,
        2,
    )


def test_normals_that_do_not_belong_to_the_depth_are_counted(tmp_path: Path) -> None:
    sideways = np.broadcast_to(np.array([255, 128, 128], np.uint8), (32, 32, 3))
    for name, value, disagree in (("good", None, 0), ("bad", sideways, 1)):
        raw = labels_of_one(tmp_path / f"{name}-raw", **({} if value is None else {"normal": value}))
        _, report = integrate_labels(raw, raw, CONFIG, tmp_path / name)
        assert report["val"]["normals/disagree"] == disagree


@pytest.mark.parametrize(
    ("modality", "value"),
    [
        ("depth", np.full((32, 32), 2000.0)),
        ("depth", np.zeros((32, 32))),
        ("semseg", np.full((32, 32), 77, np.uint8)),
        ("normal", np.zeros((32, 32, 3), np.uint8)),
    ],
)
def test_a_label_that_cannot_be_right_is_an_error_that_names_it(tmp_path: Path, modality: str, value: np.ndarray) -> None:
    raw = labels_of_one(tmp_path / "raw", **{modality: value})
    with pytest.raises(ValueError, match=f"'val', sample 'a': its {modality}"):
        integrate_labels(raw, raw, CONFIG, tmp_path / "integrated")


def test_true_normals_agree_with_true_depth() -> None:
    scenes = [scene(0, "val", index, ScenesConfig()) for index in range(6)]
    columns = {name: dict(values) for name, values in truth_columns(scenes, render(scenes, ScenesConfig())).items()}
    depth, normal = (np.stack(list(columns[name].values())) for name in ("depth", "normal"))
    angles = normal_angles_to_depth(normal, depth, Camera())
    assert angles.max() < 15
