"""How each dense label enters its VQ-VAE, what its reconstruction is compared with, and how it comes back as a label.

Losses are those of 4M (arXiv 2312.06647 §A.3): MSE for rgb and normals, smooth L1 for depth and features, cross-entropy a pixel
for classes. Where we part from it: depth is standardized in *log meters by fixed statistics*, not per image, so that metric
depth comes back from tokens alone.
"""

# B batch, C channels, H W pixels (h w for feature maps), N samples

from abc import ABC, abstractmethod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fourfold.modalities import label

Statistics = dict[str, list[float]]
SMALLEST_DEPTH = 0.01  # meters
SMOOTH_L1_BETA = 0.1  # in standard deviations; 4M's 1 is all but MSE here


class DenseFormat(ABC):
    """The border between stored values (N, ...) of one label and the tensors (B, C, H, W) of its VQ-VAE."""

    bounded = False  # whether inputs lie in [-1, 1]

    def __init__(self, statistics: Statistics):
        self.statistics = statistics

    @staticmethod
    def measure(values: np.ndarray) -> Statistics:
        """Return what the format must remember of the training values; nothing by default."""
        return {}

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels of both input and output."""

    @abstractmethod
    def inputs(self, values: np.ndarray) -> Tensor:
        """Return stored values as (B, C, H, W) float32."""

    @abstractmethod
    def loss(self, output_BCHW: Tensor, inputs_BCHW: Tensor) -> Tensor:
        """Return the reconstruction loss, a scalar."""

    @abstractmethod
    def values(self, output_BCHW: Tensor) -> np.ndarray:
        """Return a reconstruction as stored values, dtype and layout as in the shards."""


class RgbFormat(DenseFormat):
    """uint8 (H, W, 3) as [-1, 1]: mean and deviation 0.5, unlike the transformer's pixel input."""

    channels = 3
    bounded = True

    def inputs(self, values: np.ndarray) -> Tensor:  # noqa: D102
        return torch.from_numpy(np.ascontiguousarray(values)).permute(0, 3, 1, 2).float() / 127.5 - 1

    def loss(self, output_BCHW: Tensor, inputs_BCHW: Tensor) -> Tensor:  # noqa: D102
        return F.mse_loss(output_BCHW, inputs_BCHW)

    def values(self, output_BCHW: Tensor) -> np.ndarray:  # noqa: D102
        return (output_BCHW * 127.5 + 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


class NormalFormat(RgbFormat):
    """Unit vectors stored as uint8; the reconstruction is brought back to unit length."""

    def values(self, output_BCHW: Tensor) -> np.ndarray:  # noqa: D102
        return super().values(F.normalize(output_BCHW, dim=1))


class EdgeFormat(RgbFormat):
    """uint8 (H, W), 0 or 255, as [-1, 1] on one channel; what comes back is 0 or 255 again. Smooth L1 as 4M-21's."""

    channels = 1

    def inputs(self, values: np.ndarray) -> Tensor:  # noqa: D102
        return super().inputs(values[..., None])

    def loss(self, output_BCHW: Tensor, inputs_BCHW: Tensor) -> Tensor:  # noqa: D102
        return F.smooth_l1_loss(output_BCHW, inputs_BCHW)

    def values(self, output_BCHW: Tensor) -> np.ndarray:  # noqa: D102
        return ((output_BCHW[:, 0] > 0).byte() * 255).numpy()


class DepthFormat(DenseFormat):
    """Metres (H, W) as standardized log meters; the reconstruction is held within the range seen in training."""

    channels = 1

    @staticmethod
    def measure(values: np.ndarray) -> Statistics:  # noqa: D102
        log = np.log(np.maximum(values, SMALLEST_DEPTH, dtype=np.float32)).astype(np.float64)
        return {"mean": [log.mean()], "deviation": [log.std() + 1e-6], "lowest": [log.min()], "highest": [log.max()]}

    def inputs(self, values: np.ndarray) -> Tensor:  # noqa: D102
        log_BHW = np.log(np.maximum(values, SMALLEST_DEPTH, dtype=np.float32))
        return (torch.from_numpy(log_BHW)[:, None] - self.statistics["mean"][0]) / self.statistics["deviation"][0]

    def loss(self, output_BCHW: Tensor, inputs_BCHW: Tensor) -> Tensor:  # noqa: D102
        return F.smooth_l1_loss(output_BCHW, inputs_BCHW, beta=SMOOTH_L1_BETA)

    def values(self, output_BCHW: Tensor) -> np.ndarray:  # noqa: D102
        log_BHW = output_BCHW[:, 0] * self.statistics["deviation"][0] + self.statistics["mean"][0]
        return log_BHW.clamp(self.statistics["lowest"][0], self.statistics["highest"][0]).exp().half().numpy()


class ClassFormat(DenseFormat):
    """Class ids uint8 (H, W) as one-hot planes (with the first convolution: 4M's class embedding), out as logits."""

    def __init__(self, statistics: Statistics, num_classes: int):
        super().__init__(statistics)
        self.num_classes = num_classes

    @property
    def channels(self) -> int:  # noqa: D102
        return self.num_classes

    def inputs(self, values: np.ndarray) -> Tensor:
        """Raises ValueError for an id that is not a class."""
        if values.size and values.max() >= self.num_classes:
            raise ValueError(f"Class id {values.max()} came; ids 0 to {self.num_classes - 1} are allowed. Set num_classes.")
        planes_CC = torch.eye(self.num_classes)
        return F.embedding(torch.from_numpy(values.astype(np.int64)), planes_CC).permute(0, 3, 1, 2)

    def loss(self, output_BCHW: Tensor, inputs_BCHW: Tensor) -> Tensor:  # noqa: D102
        return F.cross_entropy(output_BCHW, inputs_BCHW.argmax(1))

    def values(self, output_BCHW: Tensor) -> np.ndarray:  # noqa: D102
        return output_BCHW.argmax(1).byte().numpy()


class FeatureFormat(DenseFormat):
    """Feature maps float16 (h, w, C), standardized per channel by fixed statistics."""

    @staticmethod
    def measure(values: np.ndarray) -> Statistics:  # noqa: D102
        flat_NC = values.reshape(-1, values.shape[-1]).astype(np.float32)
        mean_C, deviation_C = flat_NC.mean(0, dtype=np.float64), flat_NC.std(0, dtype=np.float64) + 1e-6
        return {"mean": mean_C.tolist(), "deviation": deviation_C.tolist()}

    @property
    def channels(self) -> int:  # noqa: D102
        return len(self.statistics["mean"])

    def inputs(self, values: np.ndarray) -> Tensor:  # noqa: D102
        features_BhwC = torch.from_numpy(values.astype(np.float32))
        return ((features_BhwC - self._row("mean")) / self._row("deviation")).permute(0, 3, 1, 2)

    def loss(self, output_BCHW: Tensor, inputs_BCHW: Tensor) -> Tensor:  # noqa: D102
        return F.smooth_l1_loss(output_BCHW, inputs_BCHW)

    def values(self, output_BCHW: Tensor) -> np.ndarray:  # noqa: D102
        return (output_BCHW.permute(0, 2, 3, 1) * self._row("deviation") + self._row("mean")).half().numpy()

    def _row(self, name: str) -> Tensor:
        return torch.tensor(self.statistics[name], dtype=torch.float32)


class VectorFormat(FeatureFormat):
    """Global vectors float16 (C,) as images of one place; only their direction counts: 1 − cosine, unit length (4M-21 §3).

    What the network sees and says is standardized per channel, as of feature maps: directions may differ by little.
    """

    @staticmethod
    def measure(values: np.ndarray) -> Statistics:  # noqa: D102
        return FeatureFormat.measure(F.normalize(torch.from_numpy(values.astype(np.float32)), dim=-1).numpy())

    def inputs(self, values: np.ndarray) -> Tensor:  # noqa: D102
        unit_BC = F.normalize(torch.from_numpy(values.astype(np.float32)), dim=-1)
        return ((unit_BC - self._row("mean")) / self._row("deviation"))[:, :, None, None]

    def loss(self, output_BCHW: Tensor, inputs_BCHW: Tensor) -> Tensor:  # noqa: D102
        return (1 - F.cosine_similarity(self._directions(output_BCHW), self._directions(inputs_BCHW), dim=1)).mean()

    def values(self, output_BCHW: Tensor) -> np.ndarray:  # noqa: D102
        return F.normalize(self._directions(output_BCHW), dim=1).half().numpy()

    def _directions(self, x_BC11: Tensor) -> Tensor:
        x_BC = x_BC11.flatten(1)
        return x_BC * self._row("deviation").to(x_BC.device) + self._row("mean").to(x_BC.device)


def dense_format(name: str, statistics: Statistics, num_classes: int) -> DenseFormat:
    """Return the format of a dense label, with the statistics that `measure_statistics` found."""
    chosen = _format_of(name)
    return chosen(statistics, num_classes) if issubclass(chosen, ClassFormat) else chosen(statistics)


def measure_statistics(name: str, values: np.ndarray) -> Statistics:
    """Return what the format of label `name` must remember of its training values (N, ...)."""
    return _format_of(name).measure(values)


def _format_of(name: str) -> type[DenseFormat]:
    kind = label(name).kind
    if kind not in DENSE_FORMATS:
        raise ValueError(f"{name!r} is {kind}, for which there is no dense format. There are: {', '.join(DENSE_FORMATS)}.")
    return DENSE_FORMATS[kind]


DENSE_FORMATS: dict[str, type[DenseFormat]] = {  # by the kind of a label
    "image": RgbFormat,
    "depth": DepthFormat,
    "normals": NormalFormat,
    "classes": ClassFormat,
    "features": FeatureFormat,
    "edges": EdgeFormat,
    "vector": VectorFormat,
}
