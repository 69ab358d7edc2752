"""Heads of maps: semantic segmentation with cross-entropy, depth with the reverse Huber loss."""

# B batch, K classes, H W size of the labels

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fourfold.transfer.head_sizes import DenseHeadConfig, HeadsConfig
from fourfold.transfer.heads.convnext import ConvNeXtHead
from fourfold.transfer.heads.dpt import DptHead
from fourfold.transfer.tasks import ExampleSource

IGNORED = -100  # target of pixels that do not count
BERHU_SHARE = 0.2  # of the largest error, where the loss becomes quadratic


def dense_head(width: int, outputs: int, config: DenseHeadConfig) -> ConvNeXtHead | DptHead:
    """Return a module from feature maps to (B, outputs, ·, ·), with `num_maps`, how many of them it reads."""
    return (DptHead if config.kind == "dpt" else ConvNeXtHead)(width, outputs, config)


@dataclass(frozen=True)
class SegmentationHead:
    """Predicts a class for each pixel. Labels are maps (H, W) of class ids; ids that are no class do not count."""

    num_classes: int

    def require(self) -> None:
        """Need nothing."""

    def build(self, width: int, config: HeadsConfig, labeled: ExampleSource) -> "SegmentationModule":
        """Return the module of this head; see `fourfold.transfer.tasks.Head`."""
        return SegmentationModule(dense_head(width, self.num_classes, config.dense), self.num_classes)


class SegmentationModule(nn.Module):
    """Logits of each class, interpolated to the size of the labels."""

    def __init__(self, maps_to_logits: ConvNeXtHead | DptHead, num_classes: int) -> None:
        super().__init__()
        self.head, self.num_classes = maps_to_logits, num_classes
        self.num_maps: int = maps_to_logits.num_maps

    def loss(self, maps: list[Tensor], labels: Sequence[np.ndarray]) -> Tensor:
        """Return the mean cross-entropy of the pixels that count; 0 if none does."""
        truth_BHW = torch.from_numpy(np.stack(labels).astype(np.int64)).to(maps[-1].device)
        truth_BHW = truth_BHW.masked_fill((truth_BHW < 0) | (truth_BHW >= self.num_classes), IGNORED)
        logits_BKHW = resized(self.head(maps).float(), truth_BHW.shape[1:])
        total = functional.cross_entropy(logits_BKHW, truth_BHW, ignore_index=IGNORED, reduction="sum")
        return total / (truth_BHW != IGNORED).sum().clamp(min=1)

    def predict(self, maps: list[Tensor], size: tuple[int, int]) -> list[np.ndarray]:
        """Return the most likely classes of each image, uint8 (H, W)."""
        logits_BKHW = resized(self.head(maps).float(), size)
        return list(logits_BKHW.argmax(dim=1).to(torch.uint8).cpu().numpy())


@dataclass(frozen=True)
class DepthHead:
    """Predicts depth. Labels are maps (H, W) in meters; pixels outside of the limits, and NaN, do not count."""

    min_depth: float = 1e-3  # meters
    max_depth: float = float("inf")  # meters; e.g. that of the far plane
    scale: Literal["linear", "log"] = "linear"  # of what the network predicts: meters, or their natural logarithm

    def require(self) -> None:
        """Need nothing."""

    def build(self, width: int, config: HeadsConfig, labeled: ExampleSource) -> "DepthModule":
        """Return the module of this head; see `fourfold.transfer.tasks.Head`."""
        known = [depth_HW[self.is_valid(depth_HW)].astype(np.float64) for depth_HW in labeled.labels]
        pixels = self.scaled(np.concatenate(known)) if known else np.zeros(0)
        mean, deviation = (float(pixels.mean()), float(pixels.std())) if len(pixels) else (0.0, 1.0)
        return DepthModule(dense_head(width, 1, config.dense), self, mean, max(deviation, 1e-6))

    def is_valid(self, depth_HW: np.ndarray) -> np.ndarray:
        """Return which pixels count, bool (H, W)."""
        with np.errstate(invalid="ignore"):
            return (depth_HW >= self.min_depth) & (depth_HW < self.max_depth)

    def scaled(self, depth: np.ndarray) -> np.ndarray:
        """Return what the network learns of depth inside the limits, before it is standardized."""
        return np.log(depth) if self.scale == "log" else depth

    def meters(self, scaled: Tensor) -> Tensor:
        """Return depth in meters, inside the limits; the inverse of `scaled`."""
        return (scaled.exp() if self.scale == "log" else scaled).clamp(self.min_depth, self.max_depth)


class DepthModule(nn.Module):
    """Depth, or its logarithm, standardized by the mean and the deviation of the labels, interpolated to their size."""

    def __init__(self, maps_to_depth: ConvNeXtHead | DptHead, head: DepthHead, mean: float, deviation: float) -> None:
        super().__init__()
        self.head, self.limits, self.mean, self.deviation = maps_to_depth, head, mean, deviation
        self.num_maps: int = maps_to_depth.num_maps

    def loss(self, maps: list[Tensor], labels: Sequence[np.ndarray]) -> Tensor:
        """Return the reverse Huber loss of the pixels that count; 0 if none does."""
        depth_BHW = np.stack(labels).astype(np.float32)
        keep_BHW = self.limits.is_valid(depth_BHW)
        # Pixels that do not count have any depth, so that its logarithm is finite
        scaled_BHW = self.limits.scaled(np.where(keep_BHW, depth_BHW, 1.0))
        wanted_BHW = np.where(keep_BHW, (scaled_BHW - self.mean) / self.deviation, 0)
        found_BHW = resized(self.head(maps).float(), depth_BHW.shape[1:])[:, 0]
        device = found_BHW.device
        return berhu(found_BHW - torch.from_numpy(wanted_BHW).float().to(device), torch.from_numpy(keep_BHW).to(device))

    def predict(self, maps: list[Tensor], size: tuple[int, int]) -> list[np.ndarray]:
        """Return the depth of each image in meters, float32 (H, W), inside the limits."""
        depth_BHW = resized(self.head(maps).float(), size)[:, 0] * self.deviation + self.mean
        return list(self.limits.meters(depth_BHW).detach().cpu().numpy())


def berhu(error: Tensor, keep: Tensor) -> Tensor:
    """Return the mean reverse Huber loss (Laina et al. 2016, arXiv 1606.00373, eq. 1) of the errors to keep; 0 without any.

    |e| up to c = 0.2 max |e|, and (e² + c²) / 2c beyond; the maximum is that of the batch.
    """
    size = torch.where(keep, error, 0).abs()
    limit = (BERHU_SHARE * size.detach().max()).clamp(min=1e-5)
    each = torch.where(size <= limit, size, (size**2 + limit**2) / (2 * limit))
    return torch.where(keep, each, 0).sum() / keep.sum().clamp(min=1)


def resized(x_BKHW: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps in another size, bilinear."""
    if x_BKHW.shape[-2:] == tuple(size):
        return x_BKHW
    return functional.interpolate(x_BKHW, tuple(size), mode="bilinear", align_corners=False)
