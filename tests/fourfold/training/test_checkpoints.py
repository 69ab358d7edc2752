import pytest
import torch

from fourfold.training.checkpoints import (
    Checkpoint,
    CheckpointWriter,
    latest_checkpoint,
    load_checkpoint,
    restore,
    save_checkpoint,
)


def test_a_checkpoint_comes_back_bit_for_bit_and_only_the_newest_are_kept(tmp_path):
    weights = {"a": torch.randn(3, 2), "tied": torch.arange(4)[::2], "scalar": torch.tensor(7.0)}
    for step in (1, 20, 300):
        save_checkpoint(Checkpoint(step, {"model": weights}, {"note": [step, 0.1]}), tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000020.safetensors", "step-00000300.safetensors"]
    assert latest_checkpoint(tmp_path).stat().st_mode & 0o777 == 0o644
    found = load_checkpoint(latest_checkpoint(tmp_path))
    assert (found.step, found.progress) == (300, {"note": [300, 0.1]})
    assert all(torch.equal(found.tensors["model"][name], tensor) for name, tensor in weights.items())


def test_a_damaged_checkpoint_is_an_error_that_names_the_file(tmp_path):
    path = save_checkpoint(Checkpoint(1, {"model": {"a": torch.ones(9)}}), tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"step-00000001\.safetensors is not a complete checkpoint"):
        load_checkpoint(path)


def test_an_empty_or_absent_folder_has_no_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "absent") is None


def test_what_goes_wrong_while_writing_is_raised_when_training_next_looks(tmp_path):
    folder = tmp_path / "run"
    writer = CheckpointWriter(folder)
    folder.write_text("a file where a folder should be")
    writer.save(Checkpoint(1, {"model": {"a": torch.ones(2)}}))
    with pytest.raises(OSError, match="run"):
        writer.wait()


def test_a_checkpoint_holds_the_values_of_its_step_although_training_goes_on_while_it_is_written(tmp_path):
    weight, writer = torch.zeros(3_000_000), CheckpointWriter(tmp_path)
    writer.save(Checkpoint(4, {"model": {"a": weight}}, {"note": 1}))
    weight += 1
    writer.wait()
    restored = {"model": {"a": torch.ones(3_000_000)}}
    assert restore(latest_checkpoint(tmp_path), restored) == {"step": 4, "note": 1}
    assert not restored["model"]["a"].any()


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    path = save_checkpoint(Checkpoint(1, {"model": {"a": torch.ones(2)}}), tmp_path)
    for other in ({"b": torch.ones(2)}, {"a": torch.ones(3)}):
        with pytest.raises(ValueError, match=r"safetensors has no model/. of shape .* it belongs to another model"):
            restore(path, {"model": other})
