"""HED: its network against VGG16 of torchvision, with weights that go through the file format of Keras."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fourfold.labelers.geometry.edges import CannyConfig, CannyEdges
from fourfold.labelers.packaged.edges import (
    CONVOLUTIONS,
    MEAN_BGR,
    WEIGHTS_FILE,
    EdgeConfig,
    HedNetwork,
    PackagedEdges,
    convert_weights,
)
from fourfold.labelers.packaged.networks import HED
from tests.support.tiny_networks import FETCHED, write_networks

WIDTHS = (4, 6, 8, 10, 10)  # of the blocks; VGG16 has 64 to 512


@pytest.fixture
def vgg():
    """VGG16's convolutions with narrow layers and random weights, and a side output for each block."""
    from torchvision.models.vgg import make_layers

    torch.manual_seed(0)
    plan = [part for width, count in zip(WIDTHS, CONVOLUTIONS, strict=True) for part in (*[width] * count, "M")]
    return make_layers(plan), [torch.nn.Conv2d(width, 1, 1) for width in WIDTHS], torch.nn.Conv2d(5, 1, 1)


def write_keras(path: Path, layers, sides, fuse) -> None:
    """Write the weights as Keras names them in the package."""
    h5py = pytest.importorskip("h5py")
    convolutions = iter(layer for layer in layers if isinstance(layer, torch.nn.Conv2d))
    named = {"fuse": fuse} | {f"dsn{number}": side for number, side in enumerate(sides, 1)}
    for block, count in enumerate(CONVOLUTIONS, 1):
        for index in range(count):
            named[f"block{block}/layers/conv2d{f'_{index}' if index else ''}"] = next(convolutions)
    with h5py.File(path, "w") as file:
        for name, layer in named.items():
            file[f"{name}/vars/0"] = layer.weight.detach().permute(2, 3, 1, 0).numpy()
            file[f"{name}/vars/1"] = layer.bias.detach().numpy()


def test_network_equals_the_taps_of_vgg16(vgg, tmp_path):
    layers, sides, fuse = vgg
    write_keras(tmp_path / "weights.h5", layers, sides, fuse)
    convert_weights(tmp_path / "weights.h5", tmp_path / WEIGHTS_FILE)
    from safetensors.torch import load_file

    images = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), np.uint8)
    x, maps = torch.from_numpy(images[..., ::-1].copy()).float() - torch.tensor(MEAN_BGR), []
    x = x.permute(0, 3, 1, 2)
    for layer in layers:
        if isinstance(layer, torch.nn.MaxPool2d):  # the output of a block is what its pooling gets
            maps.append(F.interpolate(sides[len(maps)](x), (32, 48), mode="bilinear"))
        x = layer(x)
    expected = fuse(torch.cat(maps, 1)).sigmoid()[:, 0]
    torch.testing.assert_close(
        HedNetwork(load_file(tmp_path / WEIGHTS_FILE)).probabilities(images), expected, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("shape", [(1, 1), (33, 47), (64, 17)])
def test_contours_have_the_size_of_any_image(shape, tmp_path):
    labeler = PackagedEdges(EdgeConfig(folder=str(write_networks(tmp_path))))
    (edges_HW,) = labeler.label({"rgb": [np.zeros((*shape, 3), np.uint8)]})
    assert edges_HW.shape == shape and edges_HW.dtype == np.uint8 and set(np.unique(edges_HW)) <= {0, 255}


@pytest.mark.skipif(not (FETCHED / HED.name).is_dir(), reason=f"no network in {FETCHED}; `make teachers` fetches it")
def test_texture_of_a_photograph_has_fewer_contours_than_its_objects():
    from skimage import data

    (contours,) = PackagedEdges(EdgeConfig(folder=str(FETCHED))).label({"rgb": [data.coffee()]})
    (canny,) = CannyEdges(CannyConfig()).label({"rgb": [data.coffee()]})

    def kept(rows: slice, columns: slice) -> float:
        return (contours[rows, columns] > 0).sum() / (canny[rows, columns] > 0).sum()

    assert kept(slice(20, 320), slice(180, 460)) > 0.15  # the cup
    assert kept(slice(0, 150), slice(0, 150)) < 0.08  # the wood of the table
    assert kept(slice(0, 200), slice(500, 600)) < 0.08
