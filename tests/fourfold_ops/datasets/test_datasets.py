import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kedro.io import DatasetError

from fourfold import digests
from fourfold_ops.datasets import FolderDataset, JsonDataset, MetricLogDataset, PlaceDataset, TextDataset, WorkspaceDataset
from fourfold_ops.digests import read_checked, write_recorded

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


@settings(max_examples=40)  # each example flushes files to disk
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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digests.json", "v.json"]


def test_missing_or_broken_file_is_reported_with_a_remedy(tmp_path):
    with pytest.raises(DatasetError, match=r"report.html does not exist. Run the stage"):
        TextDataset(str(tmp_path / "report.html")).load()
    write_recorded(tmp_path / "v.json", b"{")
    with pytest.raises(DatasetError, match=r"v.json is not valid JSON"):
        JsonDataset(str(tmp_path / "v.json")).load()


@pytest.mark.parametrize("kind", [JsonDataset, TextDataset])
def test_changed_file_is_refused_with_both_digests_until_it_is_written_again(kind, tmp_path, caplog):
    dataset, other = kind(str(tmp_path / "v")), kind(str(tmp_path / "w"))
    dataset.save("value 1")
    other.save("value 2")
    assert (dataset.load(), other.load()) == ("value 1", "value 2") and not caplog.text
    (tmp_path / "v").write_bytes((tmp_path / "w").read_bytes())  # as if they had been swapped
    found, expected = (json.loads((tmp_path / "digests.json").read_text())[name] for name in ("w", "v"))
    with pytest.raises(DatasetError, match=f"v changed after it was written: SHA-256 {found}, expected {expected} .*kedro run"):
        dataset.load()
    dataset.save("value 3")
    assert "v changed after it was written. Writing it again." in caplog.text and dataset.load() == "value 3"
    (tmp_path / "v").unlink()
    with pytest.raises(DatasetError, match=r"v does not exist \(expected SHA-256 [0-9a-f]{64}"):
        dataset.load()
    (tmp_path / "digests.json").write_text("{")
    with pytest.raises(DatasetError, match=r"w has no digest in digests.json, so it cannot be checked. Write it again with"):
        other.load()


@settings(max_examples=20, deadline=None)
@given(value=json_values.filter(lambda v: v is not None))
def test_both_packages_write_equal_values_as_equal_bytes(tmp_path_factory, value):
    """The report of ingestion is written by its function and once more by the catalog."""
    folder = tmp_path_factory.mktemp("j")
    digests.write_recorded_json(folder, "a.json", value)
    JsonDataset(str(folder / "b.json")).save(value)
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes()


def test_both_packages_record_in_the_same_file(tmp_path):
    write_recorded(tmp_path / "a", b"old")
    write_recorded(tmp_path / "a", b"a")
    digests.write_recorded(tmp_path, "b", b"b")
    assert sorted(digests.check_digests(tmp_path, "", "a", "b")) == ["a", "b"]
    assert [read_checked(tmp_path / name) for name in "ab"] == [b"a", b"b"]


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


def test_a_place_is_what_the_catalog_has_and_an_input_only():
    assert PlaceDataset().load() is None and PlaceDataset("s3://bucket/shards").load() == "s3://bucket/shards"
    with pytest.raises(DatasetError, match="input only"):
        PlaceDataset().save("s3://bucket")


def test_metric_log_without_tracking_discards_everything():
    log = MetricLogDataset().load()
    log.log_metrics({"loss": 1.0}, step=3)
    log.log_figure(None, "a.png")


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"making": 3}', '{"making": {"make": 9}}', '{"making": {"make": "x"}}', "\\xff"]
)
def test_damaged_table_of_seconds_is_named_and_starts_again(tmp_path, content, caplog):
    from fourfold_ops.datasets import StageSecondsDataset

    path = tmp_path / "seconds.json"
    path.write_text(content)
    seconds = StageSecondsDataset(str(path))
    assert seconds.load() == {} and f"{path} is not the table of seconds" in caplog.text
    seconds.record("making", "make", 1.5)
    assert seconds.load() == {"making": 1.5}
