"""Previews for Kedro-Viz: tables and images of what there is, nothing where there is nothing."""

import base64
import inspect
import json

import pytest
from PIL import Image

from fourfold_ops.datasets import BytesDataset, FolderDataset, JsonDataset
from fourfold_ops.datasets.previews import MAX_ROWS, MAX_TEXT


def rows(path, value):
    path.write_text(json.dumps(value))
    found = JsonDataset(str(path)).preview()
    assert len(found["index"]) == len(found["data"])
    return found["columns"], found["data"]


def test_nested_values_are_rows_with_their_names(tmp_path):
    value = {"a": {"b->c": [1, 2.123456789]}, "d": None, "e": {}, "f": "x" * 500}
    columns, data = rows(tmp_path / "a.json", value)
    assert columns == ["name", "value"]
    assert data[:3] == [["a/b->c/0", 1], ["a/b->c/1", 2.12346], ["d", ""]]
    assert data[3] == ["e", "{}"] and data[4] == ["f", "x" * MAX_TEXT + "… (500 characters)"]


def test_a_list_of_objects_is_a_table(tmp_path):
    columns, data = rows(tmp_path / "a.json", [{"step": 1, "loss": 2.0}, {"step": 2, "validation": 3}])
    assert (columns, data) == (["step", "loss", "validation"], [[1, 2.0, ""], [2, "", 3]])


def test_long_tables_are_cut_and_say_so(tmp_path):
    _, data = rows(tmp_path / "a.json", {str(i): i for i in range(MAX_ROWS + 1500)})
    assert len(data) == MAX_ROWS + 1 and data[-1] == ["and 1,500 more", ""]


def test_images_are_shown_and_other_bytes_are_not(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    assert base64.b64decode(BytesDataset(str(tmp_path / "a.png")).preview()) == (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(b"<svg onload=alert(1)>")
    assert BytesDataset(str(tmp_path / "b.png")).preview() is None


def test_a_folder_is_counted_by_its_folders(tmp_path):
    for name in ("train/rgb/0.tar", "train/rgb/1.tar", "test/rgb/deep/er/0.tar", "digests.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    found = FolderDataset(str(tmp_path)).preview()
    assert sorted(found["data"]) == [[".", 1, 5], ["test/rgb", 1, 5], ["train/rgb", 2, 10]]


@pytest.mark.parametrize("dataset", [JsonDataset, BytesDataset, FolderDataset])
def test_absent_data_have_no_preview_and_the_type_is_one_that_kedro_viz_knows(tmp_path, dataset):
    entry = dataset(str(tmp_path / "absent"))
    assert entry.preview() is None
    # it compares this name, see kedro_viz.models.flowchart.node_metadata
    assert inspect.signature(entry.preview).return_annotation.__name__ in ("TablePreview", "ImagePreview")
