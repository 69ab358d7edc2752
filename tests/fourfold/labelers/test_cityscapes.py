"""Labels of Cityscapes' files: classes, boxes and depth of the center square."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourfold.data.ingestion.sources.files import safe_key
from fourfold.data.missing import Missing
from fourfold.evaluation.benchmarks.sets.segmentation import read_cityscapes
from fourfold.labelers.cityscapes import labelers
from fourfold.labelers.cityscapes.classes import CITYSCAPES_CLASSES, CLASS_TABLE
from fourfold.labelers.cityscapes.labelers import CityscapesBoxes, CityscapesClasses, CityscapesDepth
from fourfold.labelers.config import LabelingConfig
from tests.support.cityscapes_files import CAR, METERS, NOTHING, PERSON, POLE, ROAD, SIZE, write_street

STEM, LEFT = "ulm_000001_000019", 24  # where the center square begins
THINGS = [
    (CAR, 20, 30, 32, 54),
    (PERSON, 20, 60, 44, 68),
    (CAR, 30, 0, 40, 30),
    (NOTHING, 44, 24, 48, 30),
    (POLE, 0, 70, 48, 71),
]


@pytest.fixture(autouse=True)
def root(tmp_path) -> Path:
    labelers.files_by_key.cache_clear()
    write_street(tmp_path, "train", STEM, THINGS)
    return tmp_path


def label(entry, root, side=48, **settings):
    batch = {"__key__": [safe_key(f"ulm/{STEM}_leftImg8bit.png")], "rgb": np.zeros((1, side, side, 3), np.uint8)}
    (value,) = entry(entry.config_class(path=str(root), **settings)).label(batch)
    return value


def test_classes_are_those_of_the_benchmark_in_the_center_square(root):
    found = label(CityscapesClasses, root)
    (example,) = read_cityscapes(root, "train")
    assert found.dtype == np.uint8 and np.array_equal(found, example.truth[:, LEFT : LEFT + 48])
    table = CityscapesClasses.class_table(None)
    table.check_ids(found)
    assert table.names == tuple(CITYSCAPES_CLASSES.values()) and (found[46, 2], found[0, 0]) == (255, table.id_of("sky"))
    assert set(table.thing_names) == {"person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"}
    assert np.array_equal(label(CityscapesClasses, root, side=24), found[1::2, 1::2])


def test_boxes_are_those_of_instances_that_are_visible_enough(root):
    found = label(CityscapesBoxes, root)["instances"]
    assert [one["class_name"] for one in found] == ["car", "person"]  # the largest first; a fifth of the second car is inside
    assert found[0]["box"] == pytest.approx([6 / 48, 20 / 48, 30 / 48, 32 / 48], abs=1e-6)
    assert found[1]["box"] == pytest.approx([36 / 48, 20 / 48, 44 / 48, 44 / 48], abs=1e-6)
    assert all(one["score"] == 1 for one in found)
    every = label(CityscapesBoxes, root, min_visible=0.1)["instances"]
    assert len(every) == 3 and every[2]["box"] == pytest.approx([0, 30 / 48, 6 / 48, 40 / 48], abs=1e-6)
    assert [one["class_name"] for one in label(CityscapesBoxes, root, min_pixels=9)["instances"]] == ["car"]


def test_depth_is_that_of_the_disparities(root):
    found, classes = label(CityscapesDepth, root).astype(float), label(CityscapesClasses, root)
    assert found.dtype == np.float64 and found.shape == (48, 48)
    for number in (ROAD, CAR, PERSON, POLE):
        meters = found[classes == CLASS_TABLE.id_of(CITYSCAPES_CLASSES[number])]
        np.testing.assert_allclose(meters, METERS[number], rtol=0.01)
    assert (found[classes == CLASS_TABLE.id_of("sky")] == 150).all()  # stereo finds none there
    assert label(CityscapesDepth, root, max_depth=9).max() == 9
    (root / f"gtFine/train/ulm/{STEM}_gtFine_labelIds.png").unlink()
    found = label(CityscapesDepth, root).astype(float)
    assert found[0, 0] == pytest.approx(METERS[ROAD], rel=0.01)  # that of the nearest pixel


def test_depth_with_few_disparities_is_missing(root):
    assert isinstance(label(CityscapesDepth, root, min_valid=0.9), Missing)
    path = root / f"disparity/train/ulm/{STEM}_disparity.png"
    Image.fromarray(np.zeros(SIZE, np.uint16)).save(path)
    found = label(CityscapesDepth, root, min_valid=0)
    assert isinstance(found, Missing) and "have a disparity" in found.reason


def test_missing_and_damaged_files_are_named(root):
    with pytest.raises(ValueError, match=r"has no gtFine/val/\*/\*_gtFine_labelIds.png. Correct `path`"):
        CityscapesClasses.require(CityscapesClasses.config_class(path=str(root), split="val"))
    batch = {"__key__": [safe_key("ulm/other_leftImg8bit.png")], "rgb": np.zeros((1, 8, 8, 3), np.uint8)}
    with pytest.raises(ValueError, match="gtFine/train has no label for 1 of 1 images"):
        CityscapesClasses(CityscapesClasses.config_class(path=str(root))).label(batch)
    camera = root / f"camera/train/ulm/{STEM}_camera.json"
    for content in ("{", json.dumps({"intrinsic": {"fx": 0}, "extrinsic": {"baseline": 0.2}})):
        camera.write_text(content)
        with pytest.raises(ValueError, match=r"_camera.json needs intrinsic.fx and extrinsic.baseline"):
            label(CityscapesDepth, root)
    Image.new("RGB", (96, 48)).save(root / f"gtFine/train/ulm/{STEM}_gtFine_labelIds.png")
    with pytest.raises(ValueError, match="must have one number from 0 to 255 for each pixel"):
        label(CityscapesClasses, root)


def test_conf_may_name_the_kind(root):
    section = {"kind": "cityscapes", "path": str(root)}
    config = LabelingConfig(labelers={"semseg": section, "det": section, "depth": section})
    assert config.labelers == {name: f"cityscapes_{name}" for name in ("semseg", "det", "depth")}
