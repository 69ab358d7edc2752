"""Surface normals from depth, by geometry alone.

The inverse depth of a plane is linear in the picture: where n · X = d and X = z (x, y, 1), 1/z = n · (x, y, 1) / d. So a
straight-line fit of 1/z over a small window gives the normal, without back-projecting and without cross products of noisy
differences. A window across the edge of an object would mix two surfaces; each pixel therefore takes its plane from those
windows about it that are the most nearly plane (the idea of Kuwahara's filter, 1976).

Shapes: B batch, H, W pixels, h, w windows that lie wholly in the picture, P candidate windows of a pixel.
"""

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from fourfold.configuration import Config
from fourfold.labelers.protocol import Batch
from fourfold.modalities.camera import Camera, Intrinsics

AT_ONCE = 16  # pictures: few enough for a core's cache, enough for two threads


class NormalsConfig(Config):
    """Settings of the heuristic, in pixels."""

    window: int = Field(3, ge=3, le=31)  # side of the square a plane is fitted to; odd
    reach: int = Field(2, ge=1, le=15)  # how far the center of a candidate window may lie from the pixel
    tolerance: float = Field(0.01, gt=0)  # deviation from a plane, as a share of 1/z, at which a window loses its say

    @model_validator(mode="after")
    def _every_pixel_has_a_window(self) -> "NormalsConfig":
        if self.window % 2 == 0 or self.reach < self.window // 2:
            raise ValueError(
                f"The window must be odd and the reach at least half of it, so that pixels at the border have a window too; "
                f"got window {self.window}, reach {self.reach}."
            )
        return self


class NormalsFromDepth:
    """The labeler of normals: reads the depth *label*, so it errs as the depth teacher errs."""

    name, modality, version = "normals_from_depth", "normal", "1"
    needs: tuple[str, ...] = ("depth",)

    def __init__(self, config: NormalsConfig, camera: Camera) -> None:
        self.config = config
        self.camera = camera

    def label(self, batch: Batch) -> list[np.ndarray]:
        """Return (H, W, 3) uint8 arrays, n · 127.5 + 127.5."""
        normals: list[np.ndarray] = []
        with torch.inference_mode():
            for depth_BHW in torch.from_numpy(np.stack(batch["depth"]).astype(np.float32)).split(AT_ONCE):
                normal_BHW3 = normals_from_depth(depth_BHW, self.camera, self.config)
                normals.extend((normal_BHW3 * 127.5 + 127.5).round().to(torch.uint8).numpy())
        return normals


def normals_from_depth(depth_BHW: Tensor, camera: Camera, config: NormalsConfig) -> Tensor:
    """Return unit normals (B, H, W, 3) float32 in camera axes (x right, y down, z into the scene), facing the camera.

    Args:
        depth_BHW: meters along the viewing axis, > 0, float32.
        camera: the pinhole camera that took the picture.
        config: size of the windows and strictness at edges.
    """
    inverse_BHW = 1 / depth_BHW.clamp(min=1e-3)
    plane_B3hw, residual_Bhw = _fit_planes(inverse_BHW, config.window)
    plane_B3HW = _choose_planes(plane_B3hw, residual_Bhw, inverse_BHW, config)
    return _normals_of_planes(plane_B3HW, camera.intrinsics(*depth_BHW.shape[1:]))


def blunt_normals(depth_BHW: Tensor, camera: Camera, window: int = 3) -> Tensor:
    """Return the normals (B, h, w, 3) of the windows about each pixel that has a whole one, whatever lies in them.

    Wrong across edges but ten times quicker: enough to see whether normals belong to a depth.
    """
    plane_B3hw, _ = _fit_planes(1 / depth_BHW.clamp(min=1e-3), window)
    return _normals_of_planes(plane_B3hw, camera.intrinsics(*depth_BHW.shape[1:]))


def _normals_of_planes(plane_B3HW: Tensor, intrinsics: Intrinsics) -> Tensor:
    """From pixels to viewing rays: u = fx · x + cx, so 1/z = (slope_x fx) x + (slope_y fy) y + what is left at x = y = 0.

    The minus turns them to the camera, wherever 1/z of the plane is positive, as that of anything seen is.
    """
    fx, fy, cx, cy = intrinsics
    slope_x, slope_y, level = plane_B3HW.unbind(1)
    normal_BHW3 = -torch.stack((slope_x * fx, slope_y * fy, slope_x * cx + slope_y * cy + level), -1)
    return functional.normalize(normal_BHW3, dim=-1)


def _fit_planes(inverse_BHW: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Return, per window, the plane (B, 3, h, w) and the relative deviation from it (B, h, w), by least squares.

    A plane is 1/z = slope_x · u + slope_y · v + level, with u and v in pixels from the picture's corner.
    Over a full window the normal equations are diagonal, so the fit is three fixed correlations.
    """
    steps = torch.arange(window) - (window - 1) / 2
    spread = (steps**2).mean()
    kernel_4 = torch.stack((steps.expand(window, window) / spread, steps[:, None].expand(window, window) / spread))
    kernel_3kk = torch.cat((kernel_4, torch.ones(1, window, window))) / window**2
    slope_x, slope_y, mean = functional.conv2d(inverse_BHW[:, None], kernel_3kk[:, None]).unbind(1)
    square = functional.avg_pool2d(inverse_BHW[:, None] ** 2, window, 1)[:, 0]
    left_over = square - mean**2 - (slope_x**2 + slope_y**2) * spread
    h, w = mean.shape[-2:]
    u, v = torch.arange(w) + window / 2, torch.arange(h)[:, None] + window / 2
    level = mean - slope_x * u - slope_y * v
    return torch.stack((slope_x, slope_y, level), 1), left_over.clamp(min=0).sqrt() / mean


def _choose_planes(plane_B3hw: Tensor, residual_Bhw: Tensor, inverse_BHW: Tensor, config: NormalsConfig) -> Tensor:
    """Return a plane per pixel (B, 3, H, W): the mean of its candidates, weighted by how well they and the pixel agree."""
    H, W = inverse_BHW.shape[-2:]
    border, reach = config.window // 2, config.reach
    around = [border + reach] * 4
    plane_B3YX = functional.pad(plane_B3hw, around)
    residual_BYX = functional.pad(residual_Bhw, around, value=torch.inf)  # no window is centered there
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
