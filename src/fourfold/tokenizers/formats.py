"""How each dense label enters its VQ-VAE, which loss its reconstruction has, and how it becomes a label again.

Losses are those of 4M (arXiv 2312.06647 §A.3): MSE for rgb and normals, smooth L1 for depth and features, cross-entropy
per pixel for classes. One difference: depth is standardized in *log meters by fixed statistics*, not per image, so that
tokens alone give metric depth.
"""

# B batch, C channels, H W pixels (h w for feature maps), N samples

from abc import ABC, abstractmethod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fourfold.modalities import label
from fourfold.modalities.class_table import MAX_ID

Statistics = dict[str, list[float]]
MIN_DEPTH = 0.01  # meters; the logarithm needs a positive value
SMOOTH_L1_BETA = 0.1  # in standard deviations; with 4M's 1, nearly all errors would be in the quadratic range


class DenseFormat(ABC):
    """The interface between stored values (N, ...) of one label and the tensors (B, C, H, W) of its VQ-VAE.

    Args:
        statistics: what `measure` returned for the training values.
    """

    bounded = False  # whether all inputs are in [-1, 1]: a diffusion decoder then clips its samples

    def __init__(self, statistics: Statistics):
        self.statistics = statistics

    @staticmethod
    def measure(values: np.ndarray) -> Statistics:
        """Return the statistics of the training values (N, ...) that the format needs; none by default."""
        return {}

    @property
    @abstractmethod
    def channels(self) -> int:
        """Channels of both input and output."""

    @abstractmethod
    def inputs(self, values: np.ndarray) -> Tensor:
        """Return stored values (B, ...) as float32 (B, C, H, W)."""

    @abstractmethod
    def loss(self, output_BCHW: Tensor, inputs_BCHW: Tensor) -> Tensor:
        """Return the reconstruction loss, a scalar."""

    @abstractmethod
    def values(self, output_BCHW: Tensor) -> np.ndarray:
        """Return a reconstruction (B, C, H, W) as stored values, in the dtype and layout of the shards."""


class RgbFormat(DenseFormat):
    """uint8 (H, W, 3) as [-1, 1].

    The transformer's pixel input is standardized differently, by the statistics of ImageNet.
    """

    channels = 3
    bounded = True

    def inputs(self, values: np.ndarray) -> Tensor:  # noqa: D102
        return torch.from_numpy(np.ascontiguousarray(values)).permute(0, 3, 1, 2).float() / 127.5 - 1

    def loss(self, output_BCHW: Tensor, inputs_BCHW: Tensor) -> Tensor:  # noqa: D102
        return F.mse_loss(output_BCHW, inputs_BCHW)

    def values(self, output_BCHW: Tensor) -> np.ndarray:  # noqa: D102
        return (output_BCHW * 127.5 + 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


class NormalFormat(RgbFormat):
    """Unit vectors stored as uint8 (H, W, 3); reconstructions are normalized to unit length."""

    def values(self, output_BCHW: Tensor) -> np.ndarray:  # noqa: D102
        return super().values(F.normalize(output_BCHW, dim=1))


class EdgeFormat(RgbFormat):
    """uint8 (H, W), 0 or 255, as [-1, 1] on one channel; reconstructions are 0 or 255. Smooth L1 as in 4M-21."""

    channels = 1

    def inputs(self, values: np.ndarray) -> Tensor:  # noqa: D102
        return super().inputs(values[..., None])

    def loss(self, output_BCHW: Tensor, inputs_BCHW: Tensor) -> Tensor:  # noqa: D102
        return F.smooth_l1_loss(output_BCHW, inputs_BCHW)

    def values(self, output_BCHW: Tensor) -> np.ndarray:  # noqa: D102
        return ((output_BCHW[:, 0] > 0).byte() * 255).numpy()


class DepthFormat(DenseFormat):
    """Meters (H, W) as standardized log meters; reconstructions are clipped to the range of the training values."""

    channels = 1

    @staticmethod
    def measure(values: np.ndarray) -> Statistics:  # noqa: D102
        log = np.log(np.maximum(values, MIN_DEPTH, dtype=np.float32)).astype(np.float64)
        return {"mean": [log.mean()], "deviation": [log.std() + 1e-6], "lowest": [log.min()], "highest": [log.max()]}

    def inputs(self, values: np.ndarray) -> Tensor:  # noqa: D102
        log_BHW = np.log(np.maximum(values, MIN_DEPTH, dtype=np.float32))
        return (torch.from_numpy(log_BHW)[:, None] - self.statistics["mean"][0]) / self.statistics["deviation"][0]

    def loss(self, output_BCHW: Tensor, inputs_BCHW: Tensor) -> Tensor:  # noqa: D102
        return F.smooth_l1_loss(output_BCHW, inputs_BCHW, beta=SMOOTH_L1_BETA)

    def values(self, output_BCHW: Tensor) -> np.ndarray:  # noqa: D102
        log_BHW = output_BCHW[:, 0] * self.statistics["deviation"][0] + self.statistics["mean"][0]
        return log_BHW.clamp(self.statistics["lowest"][0], self.statistics["highest"][0]).exp().half().numpy()


class ClassFormat(DenseFormat):
    """Class ids uint8 (H, W) as one-hot planes; outputs are logits.

    One-hot planes times the first convolution are 4M's class embedding. Pixels without a label (255) are zero on all planes and
    have no loss.
    """

    def __init__(self, statistics: Statistics, num_classes: int):
        super().__init__(statistics)
        self.num_classes = num_classes

    @property
    def channels(self) -> int:  # noqa: D102
        return self.num_classes

    def inputs(self, values: np.ndarray) -> Tensor:
        """Return one-hot planes float32 (B, num_classes, H, W); raises ValueError for an id that is not a class."""
        is_unlabeled = (values == MAX_ID) if self.num_classes <= MAX_ID else np.zeros(values.shape, bool)
        wrong = values[(values >= self.num_classes) & ~is_unlabeled]
        if wrong.size:
            raise ValueError(
                f"Class id {wrong.max()} is out of range; allowed: 0 to {self.num_classes - 1}. Set "
                "tokenizer_training.num_classes, or correct the class table of the labeler."
            )
        planes = torch.eye(self.num_classes + 1, self.num_classes)  # the last row is zero
        ids = np.where(is_unlabeled, self.num_classes, values).astype(np.int64)
        return F.embedding(torch.from_numpy(ids), planes).permute(0, 3, 1, 2)

    def loss(self, output_BCHW: Tensor, inputs_BCHW: Tensor) -> Tensor:  # noqa: D102
        classes_BHW, is_labeled_BHW = inputs_BCHW.argmax(1), inputs_BCHW.any(1)
        if is_labeled_BHW.all():
            return F.cross_entropy(output_BCHW, classes_BHW)
        losses_BHW = F.cross_entropy(output_BCHW, classes_BHW, reduction="none")
        return (losses_BHW * is_labeled_BHW).sum() / is_labeled_BHW.sum().clamp(min=1)

    def values(self, output_BCHW: Tensor) -> np.ndarray:  # noqa: D102
        return output_BCHW.argmax(1).byte().numpy()


class FeatureFormat(DenseFormat):
    """Feature maps float16 (h, w, C), standardized for each channel by fixed statistics."""

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
    """Global vectors float16 (C,) as images of 1 × 1; only the direction counts: the loss is 1 − cosine.

    As in 4M-21 (arXiv 2406.09406 §3).

    Inputs and outputs are standardized for each channel, as for feature maps: directions of different images differ
    little, and standardizing spreads them. Reconstructions have unit length.
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


def dense_format(name: str, statistics: Statistics, num_classes: int = 0) -> DenseFormat:
    """Return the format of a dense label.

    Args:
        name: the label; its kind selects the format.
        statistics: what `measure_statistics` returned for its training values.
        num_classes: number of class ids; only labels of class ids use it.
    """
    entry = _format_of(name)
    return entry(statistics, num_classes) if issubclass(entry, ClassFormat) else entry(statistics)


def measure_statistics(name: str, values: np.ndarray) -> Statistics:
    """Return the statistics that the format of label `name` needs of its training values (N, ...)."""
    return _format_of(name).measure(values)


def _format_of(name: str) -> type[DenseFormat]:
    kind = label(name).kind
    if kind not in DENSE_FORMATS:
        raise ValueError(
            f"{name!r} has kind {kind}, for which there is no dense format. Known kinds: {', '.join(DENSE_FORMATS)}. "
            "Add others to DENSE_FORMATS in fourfold/tokenizers/formats.py."
        )
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
