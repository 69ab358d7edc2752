"""The Inception network of FID, compared with torch-fidelity's on random weights in the published format."""

import logging
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fourfold.metrics.inception import WEIGHTS_FILE, InceptionFeatures, resized_as_tensorflow
from tests.support.inception import random_weights

NUM_TENSORS = 566  # of the published file


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / WEIGHTS_FILE
    # That of torch before 1.6, like a file of 2019
    torch.save(random_weights(), path, _use_new_zipfile_serialization=False)
    return path


def test_features_equal_those_of_torch_fidelity(weights, caplog):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    with caplog.at_level(logging.WARNING):
        mine = InceptionFeatures(weights)
    assert not mine.is_published and mine.sha256 in caplog.text
    judge = FeatureExtractorInceptionV3("judge", ["2048"], feature_extractor_weights_path=str(weights))
    rng = np.random.default_rng(0)
    for height, width in ((16, 16), (299, 299), (320, 200)):
        rgb = rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        (expected,) = judge(torch.from_numpy(rgb).permute(0, 3, 1, 2))
        found = mine(rgb)
        assert found.shape == (2, 2048) and found.dtype == np.float32
        assert np.abs(found - expected.numpy()).max() <= 1e-5 * expected.abs().max()
        assert expected.std(dim=0).mean() > 0.001 * expected.abs().mean()  # the images differ


@pytest.mark.parametrize("size", [(8, 8), (299, 299), (256, 256), (500, 320), (1, 3)])
def test_images_are_resized_as_by_tensorflow(size):
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    images = torch.randint(0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(0)).float()
    expected = interpolate_bilinear_2d_like_tensorflow1x(images, size=(299, 299), align_corners=False)
    assert torch.equal(resized_as_tensorflow(images, 299), expected)
    if size == (299, 299):
        assert torch.equal(expected, images)


def test_safetensors_give_the_same_features(weights, tmp_path):
    tensors = random_weights()
    assert len(tensors) == NUM_TENSORS
    save_file(tensors, tmp_path / "inception.safetensors")
    rgb = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    assert np.array_equal(InceptionFeatures(tmp_path / "inception.safetensors")(rgb), InceptionFeatures(weights)(rgb))


class Harmful:
    def __reduce__(self):
        return print, ("unpickled",)


def test_files_of_something_else_are_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"none\.pth does not exist\. .* take pt_inception-2015-12-05-6726825d\.pth from"):
        InceptionFeatures(tmp_path / "none.pth")
    (tmp_path / "harmful.pth").write_bytes(pickle.dumps(Harmful(), protocol=2))
    with pytest.raises(ValueError, match=r"harmful\.pth cannot be read as tensors .* Allowed: pt_inception"):
        InceptionFeatures(tmp_path / "harmful.pth")
    assert "unpickled" not in capsys.readouterr().out
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"list\.pth has other things than tensors"):
        InceptionFeatures(tmp_path / "list.pth")
    save_file({"layer": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"471 tensors differ in name or shape, first Conv2d_1a_3x3.bn.bias \(none in"):
        InceptionFeatures(tmp_path / "other.safetensors")
