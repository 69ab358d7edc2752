"""The operations of TensorFlow graphs, as functions of (inputs, attributes), after TensorFlow's documentation of each.

Images are (B, H, W, C). Shapes and other integers are tensors too, as in TensorFlow.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Inputs = Sequence[Tensor]
Attributes = Mapping[str, Any]
DTYPES = {"float32": torch.float32, "int32": torch.int32, "int64": torch.int64, "uint8": torch.uint8, "bool": torch.bool}


def _conv(x: Inputs, a: Attributes) -> Tensor:
    """Kernel (h, w, inputs, outputs)."""
    return _convolved(x[0], x[1].permute(3, 2, 0, 1), a, 1)


def _depthwise(x: Inputs, a: Attributes) -> Tensor:
    """Kernel (h, w, inputs, multiplier)."""
    h, w, inputs, multiplier = x[1].shape
    return _convolved(x[0], x[1].permute(2, 3, 0, 1).reshape(inputs * multiplier, 1, h, w), a, inputs)


def _convolved(image_BHWC: Tensor, kernel: Tensor, a: Attributes, groups: int) -> Tensor:
    strides, dilations = a["strides"], a.get("dilations", [1, 1])
    image_BCHW = _padded(image_BHWC.permute(0, 3, 1, 2), kernel.shape[-2:], strides, dilations, a["padding"])
    return F.conv2d(image_BCHW, kernel, None, strides, 0, dilations, groups).permute(0, 2, 3, 1)


def _fused(convolve: Callable[[Inputs, Attributes], Tensor], x: Inputs, a: Attributes) -> Tensor:
    """A convolution and what follows it: a bias (the third input), and an activation."""
    found = convolve(x, a)
    for name in a["fused_ops"]:
        if name == "BiasAdd":
            found = found + x[2]
        elif name in ACTIVATIONS:
            found = ACTIVATIONS[name]([found], a)
        else:
            raise ValueError(f"A convolution is fused with {name}; known here: BiasAdd, {', '.join(ACTIVATIONS)}.")
    return found


def _padded(image_BCHW: Tensor, kernel: Any, strides: Any, dilations: Any, padding: str, value: float = 0.0) -> Tensor:
    """Return the image with the border of padding "SAME", which is larger at the end if it is odd."""
    if padding == "VALID":
        return image_BCHW
    around: list[int] = []
    for size, k, s, d in zip(image_BCHW.shape[-2:], kernel, strides, dilations, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        around = [total // 2, total - total // 2, *around]
    return F.pad(image_BCHW, around, value=value) if any(around) else image_BCHW


def _average_pool(x: Inputs, a: Attributes) -> Tensor:
    if a["padding"] != "VALID":
        raise ValueError(f"AvgPool has padding {a['padding']!r}; only VALID is known here.")
    return F.avg_pool2d(x[0].permute(0, 3, 1, 2), a["ksize"], a["strides"]).permute(0, 2, 3, 1)


def _max_pool(x: Inputs, a: Attributes) -> Tensor:
    padded_BCHW = _padded(x[0].permute(0, 3, 1, 2), a["ksize"], a["strides"], (1, 1), a["padding"], -torch.inf)
    return F.max_pool2d(padded_BCHW, a["ksize"], a["strides"]).permute(0, 2, 3, 1)


def _batch_norm(x: Inputs, a: Attributes) -> Tensor:
    image, scale, offset, mean, variance = x[:5]
    return (image - mean) * (torch.rsqrt(variance + a["epsilon"]) * scale) + offset


def _resize_bilinear(x: Inputs, a: Attributes) -> Tensor:
    """Corners aligned, top left pixels aligned (TensorFlow 1), or centers of pixels at halves (TensorFlow 2)."""
    resized = x[0]
    for axis, target in ((1, int(x[1][0])), (2, int(x[1][1]))):
        source = resized.shape[axis]
        scale = (source - 1) / (target - 1) if a["align_corners"] and target > 1 else source / target
        position = torch.arange(target, dtype=torch.float32) * scale
        if a.get("half_pixel_centers"):
            position = (position + 0.5 * scale - 0.5).clamp(min=0)
        low = position.floor().long().clamp(max=source - 1)
        high = (low + 1).clamp(max=source - 1)
        weight = (position - low).view(-1, 1, 1) if axis == 1 else (position - low).view(-1, 1)
        first, second = resized.index_select(axis, low), resized.index_select(axis, high)
        resized = first + (second - first) * weight
    return resized


def _space_to_batch(x: Inputs, a: Attributes) -> Tensor:
    image, (rows, columns), padding = x[0], x[1].tolist(), x[2].tolist()
    image = F.pad(image, (0, 0, *padding[1], *padding[0]))
    B, H, W, C = image.shape
    image = image.reshape(B, H // rows, rows, W // columns, columns, C)
    return image.permute(2, 4, 0, 1, 3, 5).reshape(rows * columns * B, H // rows, W // columns, C)


def _batch_to_space(x: Inputs, a: Attributes) -> Tensor:
    image, (rows, columns), ((top, bottom), (left, right)) = x[0], x[1].tolist(), x[2].tolist()
    B, H, W, C = image.shape
    image = image.reshape(rows, columns, B // (rows * columns), H, W, C).permute(2, 3, 0, 4, 1, 5)
    image = image.reshape(B // (rows * columns), H * rows, W * columns, C)
    return image[:, top : H * rows - bottom, left : W * columns - right]


def _strided_slice(x: Inputs, a: Attributes) -> Tensor:
    begins, ends, strides = (one.tolist() for one in x[1:4])
    if a.get("ellipsis_mask") or a.get("new_axis_mask"):
        raise ValueError("StridedSlice with an ellipsis or a new axis is not known here; only begin, end and shrink are.")
    found, axis = x[0], 0
    for place, (begin, end, stride) in enumerate(zip(begins, ends, strides, strict=True)):
        if a.get("shrink_axis_mask", 0) >> place & 1:
            found = found.select(axis, begin)
            continue
        start = None if a.get("begin_mask", 0) >> place & 1 else begin
        stop = None if a.get("end_mask", 0) >> place & 1 else end
        found = found[(slice(None),) * axis + (slice(start, stop, stride),)]
        axis += 1
    return found


def _slice(x: Inputs, a: Attributes) -> Tensor:
    places = [slice(b, None if n < 0 else b + n) for b, n in zip(x[1].tolist(), x[2].tolist(), strict=True)]
    return x[0][tuple(places)]


def _squeeze(x: Inputs, a: Attributes) -> Tensor:
    return x[0].squeeze(tuple(a["squeeze_dims"])) if a.get("squeeze_dims") else x[0].squeeze()


def _pad(x: Inputs, a: Attributes) -> Tensor:
    """With zeros, or the third input."""
    around = [side for pair in reversed(x[1].tolist()) for side in pair]
    return F.pad(x[0], around, value=float(x[2]) if len(x) > 2 else 0.0)


def _sparse_to_dense(x: Inputs, a: Attributes) -> Tensor:
    """Indices (N, axes) or (N,), the shape, values (N,) or one, the value of all other places."""
    indices, shape, values, default = x
    found = default.expand(shape.tolist()).clone()
    if len(indices):
        found[tuple(indices.reshape(len(indices), -1).long().unbind(1))] = values.to(found.dtype)
    return found


def _unpack(x: Inputs, a: Attributes) -> tuple[Tensor, ...]:
    return x[0].unbind(a.get("axis", 0))


def _sum(x: Inputs, a: Attributes) -> Tensor:
    total = x[0]
    for one in x[1:]:
        total = total + one
    return total


ACTIVATIONS: dict[str, Callable[[Inputs, Attributes], Tensor]] = {
    "LeakyRelu": lambda x, a: F.leaky_relu(x[0], a["alpha"]),
    "Relu": lambda x, a: x[0].relu(),
    "Relu6": lambda x, a: x[0].clamp(0, 6),
    "Sigmoid": lambda x, a: x[0].sigmoid(),
}
OPERATIONS: dict[str, Callable[[Inputs, Attributes], Tensor | tuple[Tensor, ...]]] = {
    "Add": lambda x, a: x[0] + x[1],
    "AddN": _sum,
    "AddV2": lambda x, a: x[0] + x[1],
    "ArgMax": lambda x, a: x[0].argmax(int(x[1])),
    "AvgPool": _average_pool,
    "BatchToSpaceND": _batch_to_space,
    "BiasAdd": lambda x, a: x[0] + x[1],
    "Cast": lambda x, a: x[0].to(DTYPES[a["DstT"]]),
    "ConcatV2": lambda x, a: torch.cat(list(x[:-1]), int(x[-1])),
    "Conv2D": _conv,
    "DepthwiseConv2dNative": _depthwise,
    "Exp": lambda x, a: x[0].exp(),
    "ExpandDims": lambda x, a: x[0].unsqueeze(int(x[1])),
    "FloorDiv": lambda x, a: torch.div(x[0], x[1], rounding_mode="floor"),
    "FusedBatchNorm": _batch_norm,
    "FusedDepthwiseConv2dNative": partial(_fused, _depthwise),
    "GatherNd": lambda x, a: x[0][tuple(x[1].long().unbind(-1))],
    "Identity": lambda x, a: x[0],
    "MaxPool": _max_pool,
    "Maximum": lambda x, a: torch.maximum(x[0], x[1]),
    "Mul": lambda x, a: x[0] * x[1],
    "Pack": lambda x, a: torch.stack([torch.as_tensor(one) for one in x], a.get("axis", 0)),
    "Pad": _pad,
    "PadV2": _pad,
    "RealDiv": lambda x, a: x[0] / x[1],
    "Reshape": lambda x, a: x[0].reshape(x[1].tolist()),
    "ResizeBilinear": _resize_bilinear,
    "Shape": lambda x, a: torch.tensor(x[0].shape, dtype=torch.int32),
    "Slice": _slice,
    "SpaceToBatchND": _space_to_batch,
    "SparseToDense": _sparse_to_dense,
    "SplitV": lambda x, a: x[0].split(x[1].tolist(), int(x[2])),
    "Sqrt": lambda x, a: x[0].sqrt(),
    "SquaredDifference": lambda x, a: (x[0] - x[1]) ** 2,
    "Squeeze": _squeeze,
    "StridedSlice": _strided_slice,
    "Sub": lambda x, a: x[0] - x[1],
    "Tile": lambda x, a: x[0].tile(x[1].tolist()),
    "Transpose": lambda x, a: x[0].permute(x[1].tolist()),
    "Unpack": _unpack,
    "_FusedConv2D": partial(_fused, _conv),
    **ACTIVATIONS,
}
