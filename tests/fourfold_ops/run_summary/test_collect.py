"""Which stages a run has done: one that leaves its claimed folders as they were has found its work done."""

from pathlib import Path

import pytest

from fourfold_ops.planning.layout import read_stages
from fourfold_ops.planning.project import Claim
from fourfold_ops.run_summary import collect
from fourfold_ops.run_summary.collect import Beginning
from fourfold_ops.run_summary.facts import uncommitted_records

DVC_YAML = "stages: {making: {cmd: x, outs: [data/made: {persist: true}]}}\n"


class Planned:
    """A project whose folders with a file `claim` are claimed."""

    def claims(self, folder: Path) -> dict[Path, Claim]:
        return {file.parent: Claim(file.read_text(), {}, {}, {}) for file in sorted(folder.rglob("claim"))}


def rewrite(path: Path) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)


CHANGES = {
    "nothing": (lambda folder: None, True),
    "records written again": (lambda folder: rewrite(folder / "records.json"), True),
    "a file beside it": (lambda folder: (folder.parent / "summary.json").write_text("[]"), True),
    "an export written again": (lambda folder: rewrite(folder / "0.tar"), True),
    "a larger shard": (lambda folder: (folder / "0.tar").write_text("xx"), False),
    "one more result": (lambda folder: (folder / "more.json").write_text("{}"), False),
    "another fingerprint": (lambda folder: (folder / "claim").write_text("2"), False),
    "no claim": (lambda folder: (folder / "claim").unlink(), False),
    "no folder": (lambda folder: [file.unlink() for file in folder.iterdir()], False),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_a_stage_is_reused_if_its_claimed_folders_are_unchanged(tmp_path, monkeypatch, change, expected):
    monkeypatch.setattr(collect, "load_object", lambda path: Planned())
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    folder = tmp_path / "data/made/numbers"
    folder.mkdir(parents=True)
    for name, content in {"claim": "1", "records.json": "{}", "0.tar": "x"}.items():
        (folder / name).write_text(content)
    beginning = Beginning.of(tmp_path, "any.PROJECT")
    change(folder)
    (stage,) = read_stages(tmp_path)
    assert beginning.is_unchanged(tmp_path, stage) == expected
    assert not Beginning.of(tmp_path, "").is_unchanged(tmp_path, stage)  # nothing is known about claims


def test_files_to_commit_are_named_until_they_are_committed(shelf):
    assert uncommitted_records(shelf.project) == []
    (shelf.project / "dvc.lock").write_text("changed")
    (shelf.project / "dvc.run.yml").write_text("new")
    assert uncommitted_records(shelf.project) == ["dvc.lock", "dvc.run.yml"]
    assert uncommitted_records(shelf.project / "absent") == []
