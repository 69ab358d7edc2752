"""Work is reused when nothing that it depends on changed; what is superseded is kept and explained."""

import logging

import pytest

from fourfold.configuration import Config
from fourfold.reuse import FINGERPRINT_FILE, KEEP_VARIABLE, Fingerprint, claim, fingerprint, renew_fingerprint
from fourfold.storage import read_json


class Settings(Config):
    steps: int = 10
    sizes: tuple[int, ...] = (1, 2)


def work(steps: int = 10, data: str = "d1", code: str = "c1") -> Fingerprint:
    parameters = {"config": {"steps": steps, "sizes": [1, 2]}, "seed": 0}
    return Fingerprint(parameters, {"shards": data}, {"fourfold.masking.masker": code})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A claimed folder with one result, in a project folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(KEEP_VARIABLE, raising=False)
    path = tmp_path / "data" / "models"
    make(path, work(), "first")
    return path


def make(path, wanted, result):
    assert not claim(path, wanted)
    (path / "result").write_text(result)


def superseded(path):
    return {child / "result": (child / "result").read_text() for child in (path.parent / ".superseded").glob("*")}.values()


def test_fingerprint_file_records_what_the_result_was_made_from(tmp_path):
    wanted = fingerprint("fourfold.seeds", config=Settings(), inputs={"shards": "d1"}, seed=3)
    claim(tmp_path / "f", wanted)
    content = read_json(tmp_path / "f" / FINGERPRINT_FILE)
    assert content["parameters"] == {"config": {"steps": 10, "sizes": [1, 2]}, "seed": 3}
    assert content["inputs"] == {"shards": "d1"}
    assert set(content["modules"]) == {"fourfold", "fourfold.seeds"}
    assert (
        content["fingerprint"]
        == wanted.digest
        == fingerprint("fourfold.seeds", **{"config": Settings(), "inputs": {"shards": "d1"}, "seed": 3}).digest
    )


def test_same_work_keeps_whole_files_and_removes_temporary_ones(folder):
    (folder / ".partial-1-x").touch()
    (folder / "deep/.partial-folder").mkdir(parents=True)
    assert claim(folder, work())
    assert (folder / "result").read_text() == "first"
    assert not list(folder.rglob(".partial-*"))


def test_shared_claim_leaves_temporary_files_of_others(folder):
    (folder / ".partial-1-x").touch()
    assert claim(folder, work(), shared=True)
    assert (folder / ".partial-1-x").exists()


@pytest.mark.parametrize(
    ("changed", "explanation"),
    [
        (work(steps=20), "parameter config.steps: 10 → 20"),
        (work(data="d2"), "input shards changed"),
        (work(code="c2"), "module fourfold.masking.masker changed"),
        (work(steps=20, code="c2"), "parameter config.steps: 10 → 20; module fourfold.masking.masker changed"),
    ],
)
def test_changed_work_keeps_the_old_result_and_one_line_explains(folder, caplog, changed, explanation):
    caplog.set_level(logging.INFO)
    make(folder, changed, "second")
    assert list(superseded(folder)) == ["first"]
    (record,) = caplog.records
    kept = f"data/.superseded/models-{work().digest[:8]}"
    assert record.getMessage() == (
        f"data/models no longer matches: {explanation}. The old result is kept in {kept}; to get it back, undo the "
        "change and run again."
    )


def test_undoing_the_change_restores_the_old_result(folder):
    make(folder, work(steps=20), "second")
    assert claim(folder, work())
    assert (folder / "result").read_text() == "first" and list(superseded(folder)) == ["second"]
    assert claim(folder, work(steps=20))
    assert (folder / "result").read_text() == "second" and list(superseded(folder)) == ["first"]


@pytest.mark.parametrize(("keep", "kept"), [("0", []), ("1", ["c"]), ("2", ["b", "c"]), ("9", ["first", "b", "c"])])
def test_number_of_superseded_results_can_be_set(folder, monkeypatch, keep, kept):
    monkeypatch.setenv(KEEP_VARIABLE, keep)
    for steps, result in ((2, "b"), (3, "c"), (4, "d")):
        make(folder, work(steps), result)
    assert sorted(superseded(folder)) == sorted(kept)
    assert (folder / "result").read_text() == "d"


def test_deletion_of_an_older_result_is_reported(folder, caplog):
    make(folder, work(steps=2), "second")
    caplog.clear()
    make(folder, work(steps=3), "third")
    (record,) = caplog.records
    first = f"data/.superseded/models-{work().digest[:8]}"
    assert record.getMessage().endswith(f"Older ones are deleted (FOURFOLD_KEEP_SUPERSEDED=1): {first}.")


def test_cheap_content_is_not_kept(folder, caplog):
    caplog.set_level(logging.INFO)
    claim(folder, work(steps=2), is_cheap=True)
    assert not (folder / "result").exists() and not list(superseded(folder)) and not caplog.records


def test_wrong_number_of_superseded_results_is_refused(folder, monkeypatch):
    monkeypatch.setenv(KEEP_VARIABLE, "-1")
    with pytest.raises(ValueError, match=r"FOURFOLD_KEEP_SUPERSEDED is '-1'; allowed: a number ≥ 0"):
        claim(folder, work(steps=2))
    assert (folder / "result").read_text() == "first"


def test_folder_without_a_result_is_claimed_without_a_trace(tmp_path, caplog):
    for steps in (1, 2):
        claim(tmp_path / "empty", work(steps))
    assert not (tmp_path / ".superseded").exists() and not caplog.records


def test_folder_of_unknown_origin_is_kept(tmp_path, caplog):
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "result").write_text("by hand")
    make(folder, work(), "made")
    assert list(superseded(folder)) == ["by hand"] and "it has no fingerprint" in caplog.text


def test_fingerprint_of_an_older_version_is_superseded(folder, caplog):
    (folder / FINGERPRINT_FILE).write_text('{"fingerprint": "abc"}')
    make(folder, work(), "second")
    assert "from an older version" in caplog.text and list(superseded(folder)) == ["first"]


@pytest.mark.parametrize("content", ["[1]", "3", '"text"', "", "{", '{"fingerprint": "a", "modules": 3}', "\xff"])
def test_a_folder_with_a_damaged_fingerprint_is_kept_aside(folder, content, caplog):
    (folder / FINGERPRINT_FILE).write_bytes(content.encode("latin-1"))
    make(folder, work(), "second")
    assert "its fingerprint cannot be read" in caplog.text and list(superseded(folder)) == ["first"]
    assert (folder / "result").read_text() == "second"


def test_a_fingerprint_that_was_lost_or_changed_is_written_again(folder, caplog):
    marker, wanted = folder / FINGERPRINT_FILE, work()
    claim(folder, wanted)
    before = marker.read_bytes()
    for content in (None, b"{", before.replace(b"fingerprint", b"fingerprant")):
        marker.unlink() if content is None else marker.write_bytes(content)
        renew_fingerprint(folder, wanted)
        assert marker.read_bytes() == before
    assert caplog.text.count("was lost or changed. Writing it again.") == 3
    renew_fingerprint(folder, wanted)
    assert len(caplog.records) == 3


def test_link_to_another_disk_stays_a_link(folder, tmp_path):
    other = tmp_path / "other disk" / "models"
    other.parent.mkdir()
    folder.rename(other)
    folder.symlink_to(other)
    make(folder, work(steps=2), "second")
    assert folder.is_symlink() and (other / "result").read_text() == "second" and list(superseded(other)) == ["first"]


def test_interrupted_removal_leaves_nothing_that_looks_like_a_result(folder, monkeypatch):
    import shutil

    monkeypatch.setenv(KEEP_VARIABLE, "0")

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            claim(folder, work(steps=2))
    assert not folder.exists() and [path.name for path in folder.parent.iterdir()] == [".partial-removed-models"]
    make(folder, work(steps=2), "second")
    monkeypatch.setenv(KEEP_VARIABLE, "1")
    make(folder, work(steps=3), "third")
