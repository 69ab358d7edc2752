import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kedro.io import DatasetError

from fourfold_ops.datasets import FolderDataset, JsonDataset, MetricLogDataset, TextDataset, WorkspaceDataset

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Opened:
    def __init__(self, root: Path) -> None:
        self.root = root

    def verify(self) -> None:
        if (self.root / "broken").exists():
            raise ValueError("shard-0 is broken")


@given(value=json_values.filter(lambda v: v is not None))
def test_json_round_trip_and_equal_values_give_equal_bytes(tmp_path_factory, value):
    first, second = (tmp_path_factory.mktemp("j") / "deep/v.json" for _ in range(2))
    for path in (first, second):
        JsonDataset(str(path)).save(value)
    assert JsonDataset(str(first)).load() == value
    assert first.read_bytes() == second.read_bytes()


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path):
    dataset = JsonDataset(str(tmp_path / "v.json"))
    dataset.save({"a": 1})
    with pytest.raises(DatasetError):
        dataset.save({"a": math.nan})
    assert dataset.load() == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["v.json"]


def test_missing_or_broken_file_is_reported_with_a_remedy(tmp_path):
    with pytest.raises(DatasetError, match=r"report.html does not exist. Run the stage"):
        TextDataset(str(tmp_path / "report.html")).load()
    (tmp_path / "v.json").write_text("{")
    with pytest.raises(DatasetError, match=r"v.json is not valid JSON"):
        JsonDataset(str(tmp_path / "v.json")).load()


def test_folder_is_opened_on_load_and_checked_on_save(tmp_path, monkeypatch):
    folder = tmp_path / "shards"
    dataset = FolderDataset(str(folder))
    monkeypatch.setattr("fourfold_ops.datasets.folders.load_object", lambda path: Opened)
    with pytest.raises(DatasetError, match="does not exist or is empty"):
        dataset.load()
    folder.mkdir()
    with pytest.raises(DatasetError, match="absent or empty"):
        dataset.save(Opened(folder))
    (folder / "a.tar").write_bytes(b"a")
    dataset.save(Opened(folder))
    assert dataset.load().root == folder
    with pytest.raises(DatasetError, match="the catalog expects"):
        dataset.save(Opened(tmp_path))
    (folder / "broken").touch()
    with pytest.raises(DatasetError, match="shard-0 is broken"):
        dataset.save(Opened(folder))


def test_folder_digest_depends_on_names_and_contents_only(tmp_path):
    dataset = FolderDataset(str(tmp_path / "f"))
    (tmp_path / "f").mkdir()
    (tmp_path / "f/a").write_text("1")
    before = dataset.digest()
    (tmp_path / "f/a").write_text("1")
    assert dataset.digest() == before
    (tmp_path / "f/a").rename(tmp_path / "f/b")
    assert dataset.digest() != before


def test_workspace_is_created_on_load_and_refuses_save(tmp_path):
    dataset = WorkspaceDataset(str(tmp_path / "deep/work"))
    assert dataset.load().is_dir()
    with pytest.raises(DatasetError, match="input only"):
        dataset.save(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="Cannot create the folder"):
        WorkspaceDataset(str(tmp_path / "file/work")).load()


def test_metric_log_without_tracking_discards_everything():
    log = MetricLogDataset().load()
    log.log_metrics({"loss": 1.0}, step=3)
    log.log_figure(None, "a.png")
