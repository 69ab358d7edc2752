import os
import signal
import time

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from fourfold.digests import recorded_digests
from fourfold.training import checkpoints, sharded_checkpoints
from fourfold.training.checkpoints import (
    Checkpoint,
    CheckpointWriter,
    latest_checkpoint,
    load_checkpoint,
    restore,
    save_checkpoint,
)


def test_checkpoints_restore_bit_for_bit_and_only_the_newest_stay(tmp_path):
    weights = {"a": torch.randn(3, 2), "tied": torch.arange(4)[::2], "scalar": torch.tensor(7.0)}
    for step in (1, 20, 300):
        save_checkpoint(Checkpoint(step, {"model": weights}, {"note": [step, 0.1]}), tmp_path, keep=2)
    kept = ["step-00000020.safetensors", "step-00000300.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digests.json", *kept]
    assert sorted(recorded_digests(tmp_path)) == kept
    assert latest_checkpoint(tmp_path).stat().st_mode & 0o777 == 0o644
    found = load_checkpoint(latest_checkpoint(tmp_path))
    assert (found.step, found.progress) == (300, {"note": [300, 0.1]})
    assert all(torch.equal(found.tensors["model"][name], tensor) for name, tensor in weights.items())


def test_the_error_for_a_damaged_checkpoint_names_the_file(tmp_path):
    path = save_checkpoint(Checkpoint(1, {"model": {"a": torch.ones(9)}}), tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"step-00000001\.safetensors is not a complete checkpoint"):
        load_checkpoint(path)


def test_an_empty_or_missing_folder_has_no_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "absent") is None


def test_an_error_while_writing_is_raised_by_the_next_wait(tmp_path):
    folder = tmp_path / "run"
    writer = CheckpointWriter(folder)
    folder.write_text("a file where a folder should be")
    writer.save(Checkpoint(1, {"model": {"a": torch.ones(2)}}))
    with pytest.raises(OSError, match="run"):
        writer.wait()


def test_closing_waits_for_the_checkpoint_in_progress_and_logs_a_failure(tmp_path, monkeypatch, caplog):
    def slow(tensors, path, metadata):
        time.sleep(0.3)
        original(tensors, path, metadata)

    original = checkpoints._save_file
    monkeypatch.setattr(checkpoints, "_save_file", slow)
    for folder in (tmp_path / "run", tmp_path / "file"):
        writer = CheckpointWriter(folder)
        if folder.name == "file":
            folder.write_text("a file where a folder should be")
        writer.save(Checkpoint(1, {"model": {"a": torch.ones(2)}}))
        writer.close()
    assert names(tmp_path / "run") == {"step-00000001.safetensors"}
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert f"A checkpoint could not be written to {tmp_path / 'file'}: " in caplog.text


def test_updates_during_writing_do_not_change_a_checkpoint(tmp_path):
    weight, writer = torch.zeros(3_000_000), CheckpointWriter(tmp_path)
    writer.save(Checkpoint(4, {"model": {"a": weight}}, {"note": 1}))
    weight += 1
    writer.wait()
    restored = {"model": {"a": torch.ones(3_000_000)}}
    assert restore(latest_checkpoint(tmp_path), restored) == {"step": 4, "note": 1}
    assert not restored["model"]["a"].any()


def test_a_checkpoint_of_another_model_is_rejected(tmp_path):
    path = save_checkpoint(Checkpoint(1, {"model": {"a": torch.ones(2)}}), tmp_path)
    for other in ({"b": torch.ones(2)}, {"a": torch.ones(3)}):
        with pytest.raises(ValueError, match=r"safetensors has no model/. of shape .* it belongs to another model"):
            restore(path, {"model": other})


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith("step-")}


def test_a_checkpoint_is_removed_only_after_its_successor_is_complete(tmp_path, monkeypatch):
    save_checkpoint(Checkpoint(1, {"model": {"a": torch.ones(2)}}), tmp_path)
    before_writing, after_writing = [], []

    def observed(*arguments):
        before_writing.append(names(tmp_path))
        original(*arguments)
        after_writing.append(names(tmp_path))

    original = checkpoints._save_file
    monkeypatch.setattr(checkpoints, "_save_file", observed)
    save_checkpoint(Checkpoint(2, {"model": {"a": torch.ones(2)}}), tmp_path)
    assert before_writing == [{"step-00000001.safetensors"}]
    assert after_writing == [{"step-00000001.safetensors", "step-00000002.safetensors"}]
    assert names(tmp_path) == {"step-00000002.safetensors"}


@pytest.mark.parametrize("function", ["save_file", "_flush_folder"])
def test_a_run_killed_while_saving_keeps_a_complete_checkpoint(tmp_path, monkeypatch, function):
    save_checkpoint(Checkpoint(1, {"model": {"a": torch.full((2,), 1.0)}}), tmp_path)
    child = os.fork()
    if not child:
        original = getattr(checkpoints, function)

        def killed(*arguments):
            original(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(checkpoints, function, killed)
        save_checkpoint(Checkpoint(2, {"model": {"a": torch.full((2,), 2.0)}}), tmp_path)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    expected = {"save_file": 1, "_flush_folder": 2}[function]
    restored = {"model": {"a": torch.zeros(2)}}
    assert restore(latest_checkpoint(tmp_path), restored)["step"] == expected
    assert restored["model"]["a"].tolist() == [expected] * 2


def save_sharded(folder, step, value):
    writer = sharded_checkpoints._Writer(folder / f"step-{step:08d}", {"step": step}, lambda: None)
    dcp.save({"model/a": torch.full((2,), value)}, storage_writer=writer, no_dist=True)


def test_a_complete_sharded_checkpoint_is_never_replaced_or_removed(tmp_path, monkeypatch):
    save_sharded(tmp_path, 1, 1.0)
    save_sharded(tmp_path, 1, 9.0)  # the same step again, as after a restart: the complete one stays
    monkeypatch.setattr(sharded_checkpoints, "write_json", lambda *_: 1 / 0)
    with pytest.raises(CheckpointException, match="division by zero"):
        save_sharded(tmp_path, 2, 2.0)
    assert names(tmp_path) == {"step-00000001"}
    restored = {"model": {"a": torch.zeros(2)}}
    assert restore(latest_checkpoint(tmp_path), restored) == {"step": 1}
    assert restored["model"]["a"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("lost", ["progress.json", "digests.json", "tensors"])
def test_a_damaged_sharded_checkpoint_is_not_resumed_from(tmp_path, lost, caplog):
    for step in (1, 2):
        save_sharded(tmp_path, step, float(step))
    folder = tmp_path / "step-00000002"
    path = next(folder.glob("*.safetensors")) if lost == "tensors" else folder / lost
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    restored = {"model": {"a": torch.zeros(2)}}
    assert restore(latest_checkpoint(tmp_path), restored) == {"step": 1} and restored["model"]["a"].tolist() == [1.0, 1.0]
    assert caplog.text.count("WARNING") == 1 and str(folder) in caplog.text and names(tmp_path) == {"step-00000001"}


@pytest.mark.parametrize("harm", ["lost", "damaged"])
def test_checkpoints_without_digests_are_each_named_when_they_are_removed(tmp_path, harm, caplog):
    for step in (1, 2):
        path = save_checkpoint(Checkpoint(step, {"model": {"a": torch.ones(2)}}), tmp_path, keep=2)
    (tmp_path / "digests.json").unlink() if harm == "lost" else (tmp_path / "digests.json").write_text("{")
    assert latest_checkpoint(tmp_path) is None and not path.exists()
    told = [line for line in caplog.messages if "has no digest in digests.json, so it cannot be checked. It is removed" in line]
    assert [line.partition(".safetensors ")[0] for line in told] == [f"{tmp_path}/step-0000000{step}" for step in (2, 1)]
