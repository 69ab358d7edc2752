"""Sky and ground: everything behind the objects, in linear light.

The camera does not roll, so depth, haze and the gradient of the sky depend only on the row. The tiles are filtered over the
area of each pixel in closed form, so even the distant floor needs no supersampling.

Shape legend: S scenes, H rows, W columns, G ground rows, P = H · W pixels. float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fourfold.scenes.world.config import ScenesConfig
from fourfold.scenes.world.scene import Scene

SUN, FILL = np.float32(0.72), np.float32(0.36)  # direct light and light from the sky
HAZE = 0.6  # share of the horizon's color in the ground at the far plane


@dataclass(frozen=True)
class Backdrop:
    """Depth and colors behind the objects of S scenes."""

    depth_P: np.ndarray  # meters; that of the far plane in the sky
    is_ground_P: np.ndarray  # whether the ray through the center of the pixel hits the ground
    sunlit_3SP: np.ndarray  # colors outside shadows
    shadow_S: np.ndarray  # share of the light of the ground that remains in a shadow
    haze_3SP: np.ndarray  # light added by haze, in shadows too; constant along a row


def backdrop(scenes: Sequence[Scene], config: ScenesConfig) -> Backdrop:
    """Compute sky and ground of scenes."""
    size = config.image_size
    depth_H, ground_share_H = _rows(config)
    light_S, floor_23S, sky_23S = _colors(scenes)
    haze_H = (HAZE * (depth_H / config.far) ** 2).astype(np.float32)
    row_H = (np.arange(size) + 0.5) / size
    horizon_H = np.interp(0.5, ground_share_H, row_H) if ground_share_H.any() else 1.0
    up_H = np.clip((horizon_H - row_H) / 0.32, 0, 1).astype(np.float32)
    sky_3SH = sky_23S[0][..., None] + up_H * (sky_23S[1] - sky_23S[0])[..., None]
    share_H, received_S = ground_share_H.astype(np.float32), FILL + SUN * light_S
    clear_SH = received_S[:, None] * ((1 - haze_H) * share_H)
    added_3SH = sky_23S[0][..., None] * (haze_H * share_H)
    steady_3SH = floor_23S[0][..., None] * clear_SH + added_3SH + sky_3SH * (1 - share_H)
    step_3SH = (floor_23S[1] - floor_23S[0])[..., None] * clear_SH
    sunlit_3SHW = np.repeat(steady_3SH[..., None], size, axis=3)
    checkered = [row for row, scene in enumerate(scenes) if scene.floor == "checkered"]
    if checkered:
        first = int(np.argmax(share_H > 0))
        tiles_SGW = _tiles([scenes[row] for row in checkered], depth_H[first:], first, config)
        for channel in range(3):
            sunlit_3SHW[channel, checkered, first:] += step_3SH[channel, checkered, first:, None] * tiles_SGW
    return Backdrop(
        depth_P=np.repeat(depth_H, size).astype(np.float32),
        is_ground_P=np.repeat(depth_H < config.far, size),
        sunlit_3SP=sunlit_3SHW.reshape(3, len(scenes), -1),
        shadow_S=FILL / received_S,
        haze_3SP=np.broadcast_to(added_3SH[..., None], sunlit_3SHW.shape).reshape(3, len(scenes), -1),
    )


def _rows(config: ScenesConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row the depth at pixel centers (float64) and the share of the row's height that shows ground."""

    def depth_at(offset: float) -> np.ndarray:
        rays_3P = config.camera.to_world(config.camera.rays(config.image_size, config.image_size, (offset, 0.5)))
        falling_H = rays_3P[1].reshape(config.image_size, -1)[:, 0]
        return config.camera.height / np.maximum(-falling_H, 1e-9)

    over_H, under_H = 1 / depth_at(0.0), 1 / depth_at(1.0)  # inverse depth of the ground is linear in the row
    share_H = np.clip((under_H - 1 / config.far) / np.maximum(under_H - over_H, 1e-12), 0, 1)
    return np.minimum(depth_at(0.5), config.far), share_H


def _colors(scenes: Sequence[Scene]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the upward component of the light (S), and floor tones, and horizon and zenith (2, 3, S each), about linear."""
    light_S = np.array([scene.light[1] for scene in scenes], dtype=np.float32)
    floor_S23 = np.array([scene.floor_tones for scene in scenes], dtype=np.float32)
    sky_S23 = np.array([(scene.horizon, scene.zenith) for scene in scenes], dtype=np.float32)
    return light_S, (floor_S23 * floor_S23).transpose(1, 2, 0), (sky_S23 * sky_S23).transpose(1, 2, 0)


def _tiles(scenes: Sequence[Scene], depth_G: np.ndarray, first: int, config: ScenesConfig) -> np.ndarray:
    """Return (S, G, W) in 0–1: the share of each ground pixel that has the second tone."""
    size = config.image_size
    focal = config.camera.intrinsics(size, size).fx
    rays_3P = config.camera.to_world(config.camera.rays(size, size))
    ray_3GW = rays_3P.reshape(3, size, size)[:, first:]
    x_GW, z_G = ray_3GW[0] * depth_G[:, None], ray_3GW[2, :, 0] * depth_G
    # Step on the ground from one column, and from one row, to the next: depth = height / falling(row)
    per_column_G = depth_G / focal
    cos, sin = np.cos(np.radians(config.camera.pitch)), np.sin(np.radians(config.camera.pitch))
    depth_per_row_G = depth_G * depth_G * cos / (config.camera.height * focal)
    z_per_row_G = depth_per_row_G * ray_3GW[2, :, 0] + depth_G * sin / focal
    x_per_row_GW = ray_3GW[0] * depth_per_row_G[:, None]
    turns = [(np.cos(s.floor_yaw) / s.tile, np.sin(s.floor_yaw) / s.tile) for s in scenes]
    mixed = np.ones(1, dtype=np.float32)
    for along_x, along_z in (([c for c, _ in turns], [-s for _, s in turns]), ([s for _, s in turns], [c for c, _ in turns])):
        a_S11, b_S11 = (np.array(v, dtype=np.float32)[:, None, None] for v in (along_x, along_z))
        position = a_S11 * x_GW.astype(np.float32) + b_S11 * z_G[:, None].astype(np.float32)
        row_step = a_S11 * x_per_row_GW.astype(np.float32) + b_S11 * z_per_row_G[:, None].astype(np.float32)
        width = np.maximum(np.abs(a_S11) * per_column_G[:, None].astype(np.float32), np.abs(row_step)) + np.float32(1e-4)
        mixed = mixed * _filtered_square_wave(position, width)
    return np.float32(0.5) - np.float32(0.5) * mixed


def _filtered_square_wave(position: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Return the mean over `width` of the wave that is 1 on even tiles and -1 on odd ones (a box filter of a square wave)."""
    half = width * np.float32(0.5)
    return (_triangle(position + half) - _triangle(position - half)) / width


def _triangle(position: np.ndarray) -> np.ndarray:
    """Return the integral of the square wave: a triangle wave between 0 and 1 with a period of two tiles."""
    half = position * np.float32(0.5)
    return np.float32(1) - np.float32(2) * np.abs(half - np.floor(half) - np.float32(0.5))
