"""What would make a run fail, found before it starts."""

from types import SimpleNamespace

import pytest

from fourfold_ops.errors import UserError
from fourfold_ops.planning import checks
from fourfold_ops.planning.changes import Change
from fourfold_ops.planning.plan import Present, StagePlan
from fourfold_ops.planning.project import Storage


@pytest.mark.parametrize(
    ("config", "note"),
    [
        ("", ""),
        ("[core]\n remote = disk\n['remote \"disk\"']\n url = ../shelf\n", ""),
        ("[core]\n remote = disk\n['remote \"disk\"']\n url = ../absent\n", "the folder does not exist"),
        ("[core]\n remote = s3\n['remote \"s3\"']\n url = s3://bucket/x\n endpointurl = http://127.0.0.1:9\n", "refused"),
    ],
)
def test_a_remote_that_cannot_be_reached_is_named(tmp_path, config, note):
    (tmp_path / "shelf").mkdir()
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text(config)
    notes = checks.find_notes(Present(tmp_path, None, {}), [])
    assert [note in text and "cannot be reached" in text for text in notes] == [True] * bool(note)


PROJECT = SimpleNamespace(check=lambda stages, parameters: None)


def test_a_store_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(UserError, match=r"Cannot write to .*/data: Not a directory"):
        checks.require_start(Present(tmp_path, PROJECT, {}), [], {"uri": "sqlite:///data/mlflow.db"})
    before = sorted(tmp_path.iterdir())
    checks.require_start(Present(tmp_path, PROJECT, {}), [], {"uri": "sqlite:///elsewhere/mlflow.db"})
    assert sorted(tmp_path.iterdir()) == before


def test_disk_counts_what_is_made_again_and_the_copy_of_dvc(tmp_path, monkeypatch):
    changes = (Change("missing", "data/a"),)
    plans = [StagePlan("a", changes, size=300), StagePlan("b", (), size=50_000)]
    present = Present(tmp_path, PROJECT, {})
    assert checks.needed_bytes(present, plans) == 300
    (tmp_path / ".dvc").mkdir()
    assert checks.needed_bytes(present, plans) == 600
    monkeypatch.setattr(checks, "free_bytes", lambda path: 599)
    assert checks.find_notes(present, plans) == ["The disk may be too small: about 600 B needed, 599 B free."]


def test_the_configured_data_must_fit_where_results_are_replaced(tmp_path, monkeypatch):
    plans = [StagePlan("a", (Change("missing", "data/a"),), size=300), StagePlan("b", (), size=50_000)]
    storage, present = Storage((), 1_000, ("a",), "Keep less."), Present(tmp_path, PROJECT, {})
    monkeypatch.setattr(checks, "free_bytes", lambda path: 699)
    note = "The disk is too small for the configured data: about 1.0 kB needed, 999 B free. Keep less."
    assert checks.storage_note(present, plans, storage) == note
    monkeypatch.setattr(checks, "free_bytes", lambda path: 700)
    assert checks.storage_note(present, plans, storage) == ""
    monkeypatch.setattr(checks, "free_bytes", lambda path: 0)
    assert checks.storage_note(present, [StagePlan("a", ())], storage) == ""  # everything is there
    assert checks.storage_note(present, plans, None) == ""
