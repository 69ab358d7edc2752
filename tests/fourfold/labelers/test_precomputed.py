"""Labels that come with the data: found by the names of the images, cropped and resized as these are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fourfold.data.ingestion.images import CleaningConfig, clean_image
from fourfold.data.ingestion.sources.files import safe_key
from fourfold.labelers import LABELERS, Labeler, LabelingConfig
from fourfold.labelers.precomputed.maps import fitted


def labeler(modality: str, **settings: Any) -> Labeler:
    config = LabelingConfig.model_validate({"labelers": {modality: {"kind": "precomputed", **settings}}})
    entry = LABELERS.get(config.labelers[modality])
    return entry(config.settings[entry.name])


def batch(*names: str, side: int = 8) -> dict[str, Any]:
    return {"__key__": [safe_key(name) for name in names], "rgb": np.zeros((len(names), side, side, 3), np.uint8)}


@pytest.mark.parametrize(("height", "width"), [(30, 50), (64, 24), (16, 16)])
def test_maps_are_cropped_and_resized_as_images_are(height: int, width: int, tmp_path: Path) -> None:
    """A picture that shows coordinates is cleaned by ingestion and read as a map: both show the same places."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([y * 4, x * 4, np.zeros_like(x)], -1).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    cleaned = clean_image((tmp_path / "a.png").read_bytes(), CleaningConfig(min_side=1), 8)
    step = 4 * min(height, width) / 8  # levels of one stored pixel
    assert np.abs(fitted(picture, (8, 8)).astype(int)[..., :2] - cleaned[..., :2]).max() <= step / 2 + 4


def test_depth_in_millimeters(tmp_path: Path) -> None:
    (tmp_path / "trip").mkdir()
    Image.fromarray(np.full((20, 30), 1500, np.uint16)).save(tmp_path / "trip" / "a.png")
    np.save(tmp_path / "b.npy", np.full((16, 16), 2500.0))
    found = labeler("depth", path=str(tmp_path), scale=0.001).label(batch("trip/a.jpg", "b.JPEG"))
    assert [one.shape for one in found] == [(8, 8)] * 2
    np.testing.assert_allclose([one.mean() for one in found], [1.5, 2.5], rtol=1e-3)


def test_classes_of_a_palette(tmp_path: Path) -> None:
    image = Image.fromarray(np.repeat([[0] * 8 + [1] * 8], 16, 0).astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "a.png")
    one = labeler("semseg", path=str(tmp_path), classes=["road", "car"], things=["car"])
    np.testing.assert_array_equal(one.label(batch("a.webp"))[0], np.repeat([[0] * 4 + [1] * 4], 8, 0))
    assert one.class_table(one.config).thing_names == ("car",)
    void = labeler("semseg", path=str(tmp_path), classes=["road", "other"], ignored=[1])
    np.testing.assert_array_equal(np.unique(void.label(batch("a.webp"))[0]), [0, 255])
    assert void.class_table(void.config).ignored == (255,)
    Image.fromarray(np.full((8, 8), 9, np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png has uint8 \(8, 8\), which is no semseg label\. Class id 9 is out of range"):
        one.label(batch("a.webp"))


def test_normals_features_and_vectors(tmp_path: Path) -> None:
    for name, values in (("n", np.full((8, 8, 3), [0, 0, -2.0])), ("f", np.ones((4, 4, 5))), ("v", np.array([3.0, 4.0]))):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", values)
    assert labeler("normal", path=str(tmp_path / "n")).label(batch("a"))[0][0, 0].tolist() == [128, 128, 0]
    assert labeler("clip", path=str(tmp_path / "f")).label(batch("a"))[0].shape == (4, 4, 5)
    np.testing.assert_allclose(labeler("clip_global", path=str(tmp_path / "v")).label(batch("a"))[0], [0.6, 0.8], atol=1e-3)
    with pytest.raises(ValueError, match="needs three axes"):
        labeler("clip", path=str(tmp_path / "v")).label(batch("a"))


def coco(path: Path, **parts: Any) -> str:
    images = [{"id": 7, "file_name": "a.jpg", "width": 200, "height": 100, "license": 1}, {"id": 8, "file_name": "b.jpg"}]
    images[1] |= {"width": 100, "height": 100}
    annotations = [
        {"image_id": 7, "category_id": 3, "bbox": [50, 0, 50, 100], "area": 5000},  # the left half of the center square
        {"image_id": 7, "category_id": 4, "bbox": [0, 0, 60, 100]},  # a sixth of it is inside
        {"image_id": 7, "category_id": 4, "bbox": [140, 20, 20, 20]},  # half of it is inside
    ]
    categories = [{"id": 3, "name": "cat"}, {"id": 4, "name": "dog"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories} | parts))
    return str(path)


def test_boxes_are_moved_into_the_center_square(tmp_path: Path) -> None:
    one = labeler("det", path=coco(tmp_path / "coco.json"))
    first, second = one.label(batch("a.jpg", "b.jpg"))
    boxes = [(instance["class_name"], instance["box"]) for instance in first["instances"]]
    assert boxes == [("cat", [0, 0, 0.5, 1]), ("dog", [0.9, 0.2, 1, 0.4])]
    assert second == {"instances": []}
    assert one.class_table(one.config).thing_names == ("cat", "dog")
    assert len(one.origin()["sha256"]) == 64


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such folder"):
        labeler("depth", path=str(tmp_path / "absent"))
    np.save(tmp_path / "a.npy", np.ones((4, 4)))
    with pytest.raises(ValueError, match="has no label for 2 of 3 images: b-jpg-"):
        labeler("depth", path=str(tmp_path)).label(batch("a.jpg", "b.jpg", "c.jpg"))
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read as a label"):
        labeler("depth", path=str(tmp_path)).label(batch("a.jpg"))
    with pytest.raises(ValueError, match="not in COCO's format"):
        labeler("det", path=coco(tmp_path / "coco.json", images=3))
    with pytest.raises(ValueError, match="category 9, which the file does not define"):
        labeler(
            "det", path=coco(tmp_path / "wrong.json", annotations=[{"image_id": 7, "category_id": 9, "bbox": [0, 0, 1, 1]}])
        )
