"""EfficientNet-lite (Tan and Le, arXiv 1905.11946; the lite variants without squeeze-and-excitation and with ReLU6).

Names of parameters are those of the published PyTorch weights; widths and numbers of blocks come from the weights.
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

# B batch, C channels, H W rows and columns

# Repeats of the first stages before scaling, and the stride of each stage (table 1 of the paper)
STAGE_STRIDES = (1, 2, 2, 2, 1, 2, 1)
LITE2_REPEATS = (1, 3, 3, 4, 4, 5, 1)  # lite2: depth × 1.2
EPSILON = 1e-3


class EfficientNetLite:
    """An image classifier with its weights; it is only evaluated."""

    def __init__(self, weights: Mapping[str, Tensor], repeats: tuple[int, ...] = LITE2_REPEATS) -> None:
        self.weights = weights
        self.strides = [stride if i == 0 else 1 for stride, n in zip(STAGE_STRIDES, repeats, strict=True) for i in range(n)]

    def features(self, pixels_BCHW: Tensor) -> Tensor:
        """Return the last feature map (B, 1280, h, w) of pixels (x − 127) / 128."""
        x_BCHW = self._norm(self._conv(pixels_BCHW, "_conv_stem", 2), "_bn0").clamp(0, 6)
        for index, stride in enumerate(self.strides):
            x_BCHW = self._block(x_BCHW, f"_blocks.{index}", stride)
        return self._norm(self._conv(x_BCHW, "_conv_head", 1), "_bn1").clamp(0, 6)

    def classify(self, features_BxC: Tensor) -> Tensor:
        """Return logits (..., 1000) of features (..., 1280): pooled ones, or those of each place."""
        return F.linear(features_BxC, self.weights["_fc.weight"], self.weights["_fc.bias"])

    def _block(self, x_BCHW: Tensor, name: str, stride: int) -> Tensor:
        """Return the output of an inverted residual block (MobileNetV2, arXiv 1801.04381)."""
        inner = x_BCHW
        if f"{name}._expand_conv.weight" in self.weights:
            inner = self._norm(self._conv(inner, f"{name}._expand_conv", 1), f"{name}._bn0").clamp(0, 6)
        inner = self._norm(self._conv(inner, f"{name}._depthwise_conv", stride), f"{name}._bn1").clamp(0, 6)
        inner = self._norm(self._conv(inner, f"{name}._project_conv", 1), f"{name}._bn2")
        return inner + x_BCHW if inner.shape == x_BCHW.shape and stride == 1 else inner

    def _conv(self, x_BCHW: Tensor, name: str, stride: int) -> Tensor:
        """Convolve with padding "SAME" of TensorFlow, which is larger at the end if it is odd."""
        kernel = self.weights[f"{name}.weight"]
        around: list[int] = []
        for size, k in zip(x_BCHW.shape[-2:], kernel.shape[-2:], strict=True):
            total = max((-(-size // stride) - 1) * stride + k - size, 0)
            around = [total // 2, total - total // 2, *around]
        groups = x_BCHW.shape[1] // kernel.shape[1]
        return F.conv2d(F.pad(x_BCHW, around), kernel, None, stride, 0, 1, groups)

    def _norm(self, x_BCHW: Tensor, name: str) -> Tensor:
        w = self.weights
        mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return F.batch_norm(x_BCHW, mean, variance, w[f"{name}.weight"], w[f"{name}.bias"], False, 0.0, EPSILON)
