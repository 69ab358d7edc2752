"""Contours of objects by HED (Xie and Tu, Holistically-Nested Edge Detection, arXiv 1504.06375) on VGG16."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field
from safetensors.torch import load_file, save_file
from skimage.morphology import skeletonize
from torch import Tensor

from fourfold.labelers.packaged.labeler import PackagedLabeler, with_longer_side
from fourfold.labelers.packaged.networks import HED, PackagedConfig
from fourfold.labelers.protocol import Batch

# B batch, C channels, H W rows and columns

WEIGHTS_FILE = "weights.safetensors"
CONVOLUTIONS = (2, 2, 3, 3, 3)  # of each block of VGG16; between blocks, the maximum of 2 × 2 pixels is kept
MEAN_BGR = (104.00699, 116.66877, 122.67892)  # of ImageNet, 0-255


class HedNetwork:
    """The network with its weights; it is only evaluated.

    Args:
        weights: kernels (out, in, rows, columns) and biases (out): `block<b>.<c>.kernel` and `.bias`, counted from 1,
            `side<b>.kernel` and `fuse.kernel` with their biases.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.weights = weights

    def probabilities(self, rgb_BHW3: np.ndarray) -> Tensor:
        """Return the probability of an edge, float32 (B, H, W), of uint8 images of any size."""
        pixels_BHW3 = torch.from_numpy(rgb_BHW3[..., ::-1].astype(np.float32)) - torch.tensor(MEAN_BGR)
        x_BCHW, sides = pixels_BHW3.permute(0, 3, 1, 2), []
        for block, count in enumerate(CONVOLUTIONS, 1):
            if block > 1:
                x_BCHW = F.max_pool2d(x_BCHW, 2, ceil_mode=True)
            for index in range(1, count + 1):
                x_BCHW = F.relu(self._convolve(x_BCHW, f"block{block}.{index}"))
            side_B1hw = self._convolve(x_BCHW, f"side{block}")
            sides.append(F.interpolate(side_B1hw, rgb_BHW3.shape[1:3], mode="bilinear", align_corners=False))
        return self._convolve(torch.cat(sides, dim=1), "fuse").sigmoid()[:, 0]

    def _convolve(self, x_BCHW: Tensor, name: str) -> Tensor:
        return F.conv2d(x_BCHW, self.weights[f"{name}.kernel"], self.weights[f"{name}.bias"], padding="same")


class EdgeConfig(PackagedConfig):
    """Settings of the contours."""

    side: int = Field(256, ge=32, le=2048)  # pixels, to which the longer side of an image is resized for the network
    threshold: float = Field(0.5, gt=0, lt=1)  # an edge has at least this probability


class PackagedEdges(PackagedLabeler):
    """Labels `canny_edge` with contours of objects, in place of all edges that Canny's detector finds."""

    name, title, modality = "packaged_canny_edge", "Contours by HED", "canny_edge"
    networks = (HED,)
    config_class = EdgeConfig
    config: EdgeConfig

    @cached_property
    def network(self) -> HedNetwork:
        """The network."""
        return HedNetwork(load_file(self.folders[0] / WEIGHTS_FILE))

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return (H, W) uint8 arrays: 255 on contours, which are one pixel wide, 0 elsewhere."""
        return [self._contours(Image.fromarray(np.asarray(rgb_HW3))) for rgb_HW3 in batch["rgb"]]

    def _contours(self, image: Image.Image) -> np.ndarray:
        resized_hw3 = np.asarray(with_longer_side(image, self.config.side))
        with torch.inference_mode():
            probable_hw = self.network.probabilities(resized_hw3[None])[0].numpy()
        probable_HW = np.asarray(Image.fromarray(probable_hw).resize(image.size, Image.Resampling.BILINEAR))
        return np.where(skeletonize(probable_HW >= self.config.threshold), 255, 0).astype(np.uint8)


class PackagedObjectEdges(PackagedEdges):
    """Labels `sam_edge`, in 4M-21 the edges of masks of SAM, beside Canny's edges."""

    name, modality = "packaged_sam_edge", "sam_edge"


def convert_weights(source: Path, target: Path) -> None:
    """Write the weights of Keras (HDF5) as safetensors, with the names and axes of `HedNetwork`.

    Raises:
        ValueError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise ValueError("Reading HDF5 needs h5py. Install it: pip install 'fourfold[benchmarks]'.") from error

    kept: dict[str, Tensor] = {}
    with h5py.File(source) as file:
        layers = {f"side{block}": f"dsn{block}" for block in range(1, len(CONVOLUTIONS) + 1)} | {"fuse": "fuse"}
        for block, count in enumerate(CONVOLUTIONS, 1):
            for index in range(count):
                layers[f"block{block}.{index + 1}"] = f"block{block}/layers/conv2d{f'_{index}' if index else ''}"
        for name, layer in layers.items():
            kernel_HWio, bias_o = (torch.from_numpy(file[f"{layer}/vars/{number}"][()]) for number in (0, 1))
            kept[f"{name}.kernel"] = kernel_HWio.permute(3, 2, 0, 1).contiguous()
            kept[f"{name}.bias"] = bias_o
    save_file(kept, target)
