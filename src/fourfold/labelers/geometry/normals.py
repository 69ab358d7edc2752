"""Surface normals from depth, by geometry alone.

The inverse depth of a plane is linear in image coordinates: where n · X = d and X = z (x, y, 1), 1/z = n · (x, y, 1) / d. So
a linear fit of 1/z over a small window gives the normal, without back-projection and without cross products of noisy
differences. A window across the edge of an object would mix two surfaces; each pixel therefore takes its plane from those
windows around it that are closest to a plane (the idea of Kuwahara's filter, 1976).

Shapes: B batch, H, W pixels, h, w windows that are entirely inside the image, P candidate windows of a pixel.
"""

from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from fourfold.configuration import Config
from fourfold.labelers.protocol import Batch, Labeler
from fourfold.modalities.camera import Camera, Intrinsics

CHUNK_SIZE = 16  # images: few enough for a core's cache, enough for two threads


class NormalsConfig(Config):
    """Settings of the heuristic, in pixels."""

    window: int = Field(3, ge=3, le=31)  # side of the square a plane is fitted to; odd
    reach: int = Field(2, ge=1, le=15)  # largest offset of the center of a candidate window from the pixel, on each axis
    tolerance: float = Field(0.01, gt=0)  # deviation from a plane, as a share of 1/z, at which a window loses its weight

    @model_validator(mode="after")
    def _check_windows(self) -> "NormalsConfig":
        if self.window % 2 == 0 or self.reach < self.window // 2:
            raise ValueError(
                f"window is {self.window} and reach is {self.reach}; window must be odd and reach at least window // 2, "
                "so that pixels at the border have a window."
            )
        return self


class NormalsFromDepth(Labeler):
    """Labels `normal` from the depth *label*, so that it inherits the errors of the depth teacher."""

    name, title, modality = "normals_from_depth", "Surface normals from depth", "normal"
    kind = "geometry"
    config_class = NormalsConfig
    config: NormalsConfig
    requires = ("depth",)

    def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
        """Return (H, W, 3) uint8 arrays, n · 127.5 + 127.5."""
        normals: list[np.ndarray] = []
        with torch.inference_mode():
            for depth_BHW in torch.from_numpy(np.stack(batch["depth"]).astype(np.float32)).split(CHUNK_SIZE):
                normal_BHW3 = normals_from_depth(depth_BHW, self.context.camera, self.config)
                normals.extend((normal_BHW3 * 127.5 + 127.5).round().to(torch.uint8).numpy())
        return normals


def normals_from_depth(depth_BHW: Tensor, camera: Camera, config: NormalsConfig) -> Tensor:
    """Return unit normals (B, H, W, 3) float32 in camera axes (x right, y down, z into the scene), facing the camera.

    Args:
        depth_BHW: meters along the viewing axis, > 0, float32.
        camera: the pinhole camera that took the image.
        config: size of the windows, and how much they may deviate from a plane.
    """
    inverse_BHW = 1 / depth_BHW.clamp(min=1e-3)
    plane_B3hw, residual_Bhw = _fit_planes(inverse_BHW, config.window)
    plane_B3HW = _choose_planes(plane_B3hw, residual_Bhw, inverse_BHW, config)
    return _normals_of_planes(plane_B3HW, camera.intrinsics(*depth_BHW.shape[1:]))


def fast_normals(depth_BHW: Tensor, camera: Camera, window: int = 3) -> Tensor:
    """Return the normals (B, h, w, 3) of the windows around all pixels that have an entire one, without a choice of windows.

    Wrong across edges but ten times faster: enough to check whether normals belong to a depth.
    """
    plane_B3hw, _ = _fit_planes(1 / depth_BHW.clamp(min=1e-3), window)
    return _normals_of_planes(plane_B3hw, camera.intrinsics(*depth_BHW.shape[1:]))


def _normals_of_planes(plane_B3HW: Tensor, intrinsics: Intrinsics) -> Tensor:
    """Return unit normals (B, H, W, 3) of planes in pixel coordinates (B, 3, H, W).

    With u = fx · x + cx, 1/z = (slope_x fx) x + (slope_y fy) y + the value at x = y = 0. The minus sign makes the normals
    face the camera wherever 1/z of the plane is positive, as it is for every visible surface.
    """
    fx, fy, cx, cy = intrinsics
    slope_x, slope_y, level = plane_B3HW.unbind(1)
    normal_BHW3 = -torch.stack((slope_x * fx, slope_y * fy, slope_x * cx + slope_y * cy + level), -1)
    return functional.normalize(normal_BHW3, dim=-1)


def _fit_planes(inverse_BHW: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Return, per window, the plane (B, 3, h, w) and the relative deviation from it (B, h, w), by least squares.

    A plane is 1/z = slope_x · u + slope_y · v + level, with u and v in pixels from the image's corner.
    Over a full window the normal equations are diagonal, so the fit is three fixed correlations.
    """
    steps = torch.arange(window) - (window - 1) / 2
    spread = (steps**2).mean()
    kernel_4 = torch.stack((steps.expand(window, window) / spread, steps[:, None].expand(window, window) / spread))
    kernel_3kk = torch.cat((kernel_4, torch.ones(1, window, window))) / window**2
    slope_x, slope_y, mean = functional.conv2d(inverse_BHW[:, None], kernel_3kk[:, None]).unbind(1)
    square = functional.avg_pool2d(inverse_BHW[:, None] ** 2, window, 1)[:, 0]
    residual_square = square - mean**2 - (slope_x**2 + slope_y**2) * spread
    h, w = mean.shape[-2:]
    u, v = torch.arange(w) + window / 2, torch.arange(h)[:, None] + window / 2
    level = mean - slope_x * u - slope_y * v
    return torch.stack((slope_x, slope_y, level), 1), residual_square.clamp(min=0).sqrt() / mean


def _choose_planes(plane_B3hw: Tensor, residual_Bhw: Tensor, inverse_BHW: Tensor, config: NormalsConfig) -> Tensor:
    """Return a plane per pixel (B, 3, H, W): the mean of its candidates, weighted by how well they fit the pixel."""
    H, W = inverse_BHW.shape[-2:]
    border, reach = config.window // 2, config.reach
    around = [border + reach] * 4
    plane_B3YX = functional.pad(plane_B3hw, around)
    residual_BYX = functional.pad(residual_Bhw, around, value=torch.inf)  # no window has its center there
    u, v = torch.arange(W) + 0.5, torch.arange(H)[:, None] + 0.5
    logits, planes = [], []
    for top in range(2 * reach + 1):
        for left in range(2 * reach + 1):
            plane_B3HW = plane_B3YX[:, :, top : top + H, left : left + W]
            fitted_BHW = plane_B3HW[:, 0] * u + plane_B3HW[:, 1] * v + plane_B3HW[:, 2]
            own_BHW = (fitted_BHW - inverse_BHW) / inverse_BHW
            logits.append(-(residual_BYX[:, top : top + H, left : left + W] ** 2 + own_BHW**2) / config.tolerance**2)
            planes.append(plane_B3HW)
    weight_PBHW = torch.stack(logits).softmax(0)
    chosen_B3HW = torch.zeros_like(planes[0])
    for weight_BHW, plane_B3HW in zip(weight_PBHW, planes, strict=True):
        chosen_B3HW.addcmul_(weight_BHW[:, None], plane_B3HW)
    return chosen_B3HW
