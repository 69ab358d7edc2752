from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fourfold.data.missing import Missing
from fourfold.data.shards import ShardSet, finish_split, write_columns
from fourfold.labelers import LabelingConfig, integrate_labels
from fourfold.labelers.consistency import normal_angles_to_depth, share_inside
from fourfold.modalities.camera import Camera
from fourfold.modalities.class_table import ClassTable
from fourfold.plugins import load_plugins
from fourfold.scenes.world import CLASS_NAMES, CLASS_TABLE, ScenesConfig, render, scene
from fourfold.scenes.world.writing import truth_columns

load_plugins(["fourfold.scenes"])
CONFIG = LabelingConfig(labelers={"normal": "normals_from_depth", "semseg": "scene_segmentation"})
SPHERE = CLASS_NAMES.index("sphere")


def labels_of_one(root: Path, table: ClassTable = CLASS_TABLE, **changed: Any) -> ShardSet:
    classes = np.full((32, 32), 1, np.uint8)
    classes[8:24, 8:24] = SPHERE
    normal = np.broadcast_to(np.array([128, 128, 0], np.uint8), (32, 32, 3))
    values = {"depth": np.full((32, 32), 4.0), "normal": normal, "semseg": classes, "det": {"instances": []}} | changed
    write_columns(root, "val", "shard-00000.tar", {name: [("a", value)] for name, value in values.items()})
    finish_split(root, "val", list(values), class_tables={"semseg": table})
    return ShardSet(root)


def box(name: str, score: float, sides: list[float]) -> dict:
    return {"box": sides, "class_name": name, "score": score}


def test_weak_and_contradicted_boxes_are_dropped_and_counted(tmp_path: Path) -> None:
    middle, corner = [0.25, 0.25, 0.75, 0.75], [0.0, 0.0, 0.2, 0.2]
    good = box("sphere", 0.9, middle)
    instances = [good, box("sphere", 0.1, middle), box("cone", 0.9, middle), box("sphere", 0.9, corner)]
    raw = labels_of_one(tmp_path / "raw", det={"instances": instances})
    integrated, report = integrate_labels(raw, raw, CONFIG, tmp_path / "integrated")
    assert integrated.load_column("val", "det") == [{"instances": [good]}]
    assert {name: report["val"][f"boxes/{name}"] for name in ("kept", "dropped_score", "dropped_class")} == {
        "kept": 1,
        "dropped_score": 1,
        "dropped_class": 2,
    }
    assert integrated.class_table("val") == CLASS_TABLE


def test_boxes_of_classes_outside_the_segmentation_are_kept(tmp_path: Path) -> None:
    person = box("person", 0.9, [0.25, 0.25, 0.75, 0.75])
    raw = labels_of_one(tmp_path / "raw", det={"instances": [person]})
    integrated, _ = integrate_labels(raw, raw, CONFIG, tmp_path / "integrated")
    assert integrated.load_column("val", "det") == [{"instances": [person]}]


def test_allowed_class_ids_come_from_the_class_table(tmp_path: Path) -> None:
    table = ClassTable(names=tuple(f"class {number}" for number in range(150)), ignored=(255,))
    ids = np.arange(1024).reshape(32, 32).astype(np.uint8) % 150
    ids[0, 0] = 255
    raw = labels_of_one(tmp_path / "raw", table, semseg=ids)
    integrated, _ = integrate_labels(raw, raw, CONFIG, tmp_path / "integrated")
    assert integrated.class_table("val") == table
    raw = labels_of_one(tmp_path / "wrong", table, semseg=np.full((32, 32), 150, np.uint8))
    with pytest.raises(ValueError, match=r"1 × impossible: Class id 150 is out of range; allowed: 0 to 149 and 255"):
        integrate_labels(raw, raw, CONFIG, tmp_path / "integrated_wrong")


def test_normals_that_disagree_with_depth_are_counted(tmp_path: Path) -> None:
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
def test_an_impossible_label_is_missing_and_bounded(tmp_path: Path, modality: str, value: np.ndarray) -> None:
    raw = labels_of_one(tmp_path / "raw", **{modality: value})
    with pytest.raises(ValueError, match=rf"1 of 1 {modality} labels are missing.*1 × impossible: .*\(e\.g\. val/a\)"):
        integrate_labels(raw, raw, CONFIG, tmp_path / "integrated")
    allowed = CONFIG.model_copy(update={"max_missing_share": 1.0})
    labels, report = integrate_labels(raw, raw, allowed, tmp_path / "integrated")
    assert isinstance(labels.load_column("val", modality)[0], Missing) and report["val"][f"missing/{modality}"] == 1


def test_true_normals_agree_with_true_depth() -> None:
    scenes = [scene(0, "val", index, ScenesConfig()) for index in range(6)]
    columns = {name: dict(values) for name, values in truth_columns(scenes, render(scenes, ScenesConfig())).items()}
    depth, normal = (np.stack(list(columns[name].values())) for name in ("depth", "normal"))
    angles = normal_angles_to_depth(normal, depth, Camera())
    assert angles.max() < 15


def test_pixels_without_a_label_say_nothing_about_a_box():
    table = ClassTable(names=("sky", "cat"), ignored=(255,))
    ids = np.full((4, 4), 255, np.uint8)
    ids[0, :2] = 1
    ids[0, 2] = 0
    assert share_inside(ids, [0, 0, 1, 1], 1, table) == pytest.approx(2 / 3)
    assert share_inside(ids, [0, 0.5, 1, 1], 1, table) is None
