import pytest
import torch

from fourfold.training.checkpoints import Checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint


def test_a_checkpoint_comes_back_bit_for_bit_and_only_the_newest_are_kept(tmp_path):
    weights = {"a": torch.randn(3, 2), "tied": torch.arange(4)[::2], "scalar": torch.tensor(7.0)}
    for step in (1, 20, 300):
        save_checkpoint(Checkpoint(step, {"model": weights}, {"note": [step, 0.1]}), tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000020.safetensors", "step-00000300.safetensors"]
    found = load_checkpoint(latest_checkpoint(tmp_path))
    assert (found.step, found.progress) == (300, {"note": [300, 0.1]})
    assert all(torch.equal(found.tensors["model"][name], tensor) for name, tensor in weights.items())


def test_a_damaged_checkpoint_is_an_error_that_names_the_file(tmp_path):
    path = save_checkpoint(Checkpoint(1, {"model": {"a": torch.ones(9)}}), tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"step-00000001\.safetensors is not a whole checkpoint"):
        load_checkpoint(path)


def test_an_empty_or_absent_folder_has_no_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "absent") is None
