"""The Inception network of FID (Heusel et al. 2017, arXiv 1706.08500), with weights from a local file.

FID is defined by one network: the Inception-v3 of TensorFlow from 2015-12-05, whose converted weights pytorch-fid and
torch-fidelity publish, and by its input: levels that TensorFlow 1.x resizes to 299 × 299. It differs from torchvision's
Inception-v3 in its weights and in the pooling of some blocks. It is written here because torch-fidelity, with which the tests
compare it, reads its weights by unpickling.
"""

# B images, C channels, H W size, K features

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from fourfold.digests import sha256_file

logger = logging.getLogger(__name__)
SIDE = 299  # pixels
NUM_FEATURES = 2048
WEIGHTS_FILE = "pt_inception-2015-12-05-6726825d.pth"  # of pytorch-fid; torch-fidelity calls the same file weights-inception-…
WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SITE = "the releases of github.com/mseitzer/pytorch-fid (or github.com/toshas/torch-fidelity)"
UNUSED = ("fc.weight", "fc.bias")  # the classes, which the Inception Score needs

Kernel = int | tuple[int, int]
Layer = tuple[int, Kernel]  # output channels, kernel
Branch = list[Layer | list[Layer]]  # one layer after the other; those of an inner list have the same input
Pool = Literal["average", "max"]


class Convolution(nn.Module):
    """Convolution, batch norm and ReLU."""

    def __init__(self, inputs: int, layer: Layer, stride: int = 1, is_padded: bool = True) -> None:
        super().__init__()
        outputs, kernel = layer
        sizes = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sizes[0] // 2, sizes[1] // 2) if is_padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, sizes, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return (B, outputs, ·, ·)."""
        return functional.relu(self.bn(self.conv(x_BCHW)))


class Block(nn.Module):
    """Branches whose outputs are concatenated; layers have the names of torchvision's, e.g. `branch3x3dbl_2`.

    Without `pool`, the last layer of each branch has stride 2, and the input pooled with stride 2 is the last branch.
    """

    def __init__(self, inputs: int, branches: Mapping[str, Branch], pool: Pool | None = None) -> None:
        super().__init__()
        self.pool = pool
        self.chains: dict[str, list[list[str]]] = {}
        for branch, steps in branches.items():
            width, self.chains[branch] = inputs, []
            for number, step in enumerate(steps, 1):
                layers = step if isinstance(step, list) else [step]
                suffixes = [""] if len(steps) == 1 else [f"_{number}{letter}" for letter in ("ab" if len(layers) > 1 else [""])]
                is_last_of_reduction = pool is None and number == len(steps)
                for suffix, layer in zip(suffixes, layers, strict=True):
                    stride = 2 if is_last_of_reduction else 1
                    self.add_module(branch + suffix, Convolution(width, layer, stride, is_padded=not is_last_of_reduction))
                self.chains[branch].append([branch + suffix for suffix in suffixes])
                width = sum(outputs for outputs, _ in layers)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the concatenated outputs of the branches."""
        found = []
        for branch, steps in self.chains.items():
            value = self._pooled(x_BCHW) if branch == "branch_pool" else x_BCHW
            for names in steps:
                value = torch.cat([self.get_submodule(name)(value) for name in names], dim=1)
            found.append(value)
        if self.pool is None:
            found.append(functional.max_pool2d(x_BCHW, 3, stride=2))
        return torch.cat(found, dim=1)

    def _pooled(self, x_BCHW: Tensor) -> Tensor:
        if self.pool == "max":
            return functional.max_pool2d(x_BCHW, 3, stride=1, padding=1)
        # The padding is not part of TensorFlow's averages
        return functional.avg_pool2d(x_BCHW, 3, stride=1, padding=1, count_include_pad=False)


def _block_35(inputs: int, pooled: int) -> Block:
    """Return a block of maps of 35 × 35 pixels."""
    return Block(
        inputs,
        {
            "branch1x1": [(64, 1)],
            "branch5x5": [(48, 1), (64, 5)],
            "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
            "branch_pool": [(pooled, 1)],
        },
        "average",
    )


def _block_17(inner: int) -> Block:
    """Return a block of maps of 17 × 17 pixels."""
    row, column = (1, 7), (7, 1)
    return Block(
        768,
        {
            "branch1x1": [(192, 1)],
            "branch7x7": [(inner, 1), (inner, row), (192, column)],
            "branch7x7dbl": [(inner, 1), (inner, column), (inner, row), (inner, column), (192, row)],
            "branch_pool": [(192, 1)],
        },
        "average",
    )


def _block_8(inputs: int, pool: Pool) -> Block:
    """Return a block of maps of 8 × 8 pixels."""
    both: list[Layer] = [(384, (1, 3)), (384, (3, 1))]
    return Block(
        inputs,
        {
            "branch1x1": [(320, 1)],
            "branch3x3": [(384, 1), both],
            "branch3x3dbl": [(448, 1), (384, 3), both],
            "branch_pool": [(192, 1)],
        },
        pool,
    )


class Inception(nn.Module):
    """Images → the features of FID: the mean of the last maps."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, (32, 3), stride=2, is_padded=False)
        self.Conv2d_2a_3x3 = Convolution(32, (32, 3), is_padded=False)
        self.Conv2d_2b_3x3 = Convolution(32, (64, 3))
        self.Conv2d_3b_1x1 = Convolution(64, (80, 1))
        self.Conv2d_4a_3x3 = Convolution(80, (192, 3), is_padded=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _block_35(192, 32), _block_35(256, 64), _block_35(288, 64)
        self.Mixed_6a = Block(288, {"branch3x3": [(384, 3)], "branch3x3dbl": [(64, 1), (96, 3), (96, 3)]})
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (_block_17(inner) for inner in (128, 160, 160, 192))
        self.Mixed_7a = Block(
            768, {"branch3x3": [(192, 1), (320, 3)], "branch7x7x3": [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)]}
        )
        # The maximum in the last block is in the published network, not in the paper about Inception
        self.Mixed_7b, self.Mixed_7c = _block_8(1280, "average"), _block_8(2048, "max")

    def forward(self, rgb_BCHW: Tensor) -> Tensor:
        """Return features (B, 2048) of images (B, 3, H, W) of any size with levels 0 to 255."""
        x = (resized_as_tensorflow(rgb_BCHW, SIDE) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = functional.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = functional.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean(dim=(2, 3))


def resized_as_tensorflow(x_BCHW: Tensor, side: int) -> Tensor:
    """Return maps of side × side pixels, bilinear as `tf.image.resize_bilinear` of TensorFlow 1.x, in the same float type.

    Output pixel i is at i · length / side: corners, not centers, of pixels are aligned, and nothing is smoothed before a
    reduction. No option of `torch.nn.functional.interpolate` does this.
    """
    for dim in (3, 2):
        length = x_BCHW.shape[dim]
        place = torch.arange(side, device=x_BCHW.device) * torch.tensor(length / side, dtype=torch.float32)
        low = place.long()
        first = x_BCHW.index_select(dim, low)
        second = x_BCHW.index_select(dim, (low + 1).clamp(max=length - 1))
        share = (place - low).to(x_BCHW.dtype).reshape((-1, 1) if dim == 2 else (-1,))
        x_BCHW = first + (second - first) * share
    return x_BCHW


class InceptionFeatures:
    """The features of FID, from weights in a local file.

    Attributes:
        sha256: of the file.
        is_published: whether it is the published file, byte by byte.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu") -> None:
        """Read the published file, or the same tensors as safetensors; nothing is unpickled but tensors.

        Raises:
            ValueError: the file is missing, no file of tensors, or one of another network.
        """
        path = Path(path).expanduser()
        tensors = _read(path)
        self.sha256 = sha256_file(path)
        self.is_published = self.sha256 == WEIGHTS_SHA256
        if not self.is_published:
            logger.warning("%s is not the published file %s: SHA-256 %s.", path, WEIGHTS_FILE, self.sha256)
        self._network = Inception()
        own, given = _used(self._network.state_dict()), _used(tensors)
        shapes = {name: (_shape(given, name), _shape(own, name)) for name in sorted(own.keys() | given.keys())}
        wrong = {name: pair for name, pair in shapes.items() if pair[0] != pair[1]}
        if wrong:
            name, (found, expected) = next(iter(wrong.items()))
            raise ValueError(
                f"{path} does not have the weights of FID's Inception network: {len(wrong)} tensors differ in name or shape, "
                f"first {name} ({found} in the file, {expected} expected). Take {WEIGHTS_FILE} from {SITE}."
            )
        self._network.load_state_dict(given, strict=False)
        self._network.eval().requires_grad_(False).to(device)
        self._device = device

    @torch.inference_mode()
    def __call__(self, rgb_BHW3: np.ndarray) -> np.ndarray:
        """Return features float32 (B, 2048) of images uint8 (B, H, W, 3)."""
        x_BCHW = torch.from_numpy(np.ascontiguousarray(rgb_BHW3)).to(self._device).permute(0, 3, 1, 2).float()
        return self._network(x_BCHW).cpu().numpy()


def _used(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: v for name, v in tensors.items() if name not in UNUSED and not name.endswith("num_batches_tracked")}


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    return str(tuple(tensors[name].shape)) if name in tensors else "none"


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"{path} does not exist. FID needs the published Inception network: take {WEIGHTS_FILE} from {SITE}.")
    try:
        found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise different errors
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f"{path} cannot be read as tensors ({reason}). Allowed: {WEIGHTS_FILE} from {SITE}, or its tensors as .safetensors."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(
            f"{path} has other things than tensors by name. Allowed: {WEIGHTS_FILE} from {SITE}, or its tensors as "
            ".safetensors."
        )
    return found
