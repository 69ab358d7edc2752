import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.labelers import LabelingContext
from fourfold.labelers.geometry.normals import NormalsConfig, NormalsFromDepth, normals_from_depth
from fourfold.metrics.dense import normal_angles
from fourfold.modalities.camera import Camera
from fourfold.scenes.world import ScenesConfig, render, scene

CAMERA = Camera()
CONFIG = NormalsConfig()


def plane_depth(normal: np.ndarray, distance: float, size: int) -> np.ndarray:
    """Depth (size, size) of the plane n · X = −distance."""
    rays_3P = CAMERA.rays(size, size)
    return (-distance / (normal @ rays_3P)).reshape(size, size).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(1.0, 8.0))
def test_every_pixel_of_a_plane_has_the_normal_of_the_plane(x: float, y: float, distance: float) -> None:
    normal = np.array([x, y, -1.0]) / np.linalg.norm([x, y, -1.0])
    depth = torch.from_numpy(plane_depth(normal, distance, 24))[None]
    found = normals_from_depth(depth, CAMERA, CONFIG)[0].numpy()
    assert np.degrees(np.arccos(np.clip(found @ normal, -1, 1))).max() < 0.5


def test_the_edge_between_two_planes_stays_sharp() -> None:
    left, right = np.array([0.6, 0, -0.8]), np.array([-0.6, 0, -0.8])
    depth = np.where(np.arange(24) < 12, plane_depth(left, 3, 24), plane_depth(right, 5, 24))
    found = normals_from_depth(torch.from_numpy(depth)[None], CAMERA, CONFIG)[0].numpy()
    truth = np.where((np.arange(24) < 12)[:, None], left, right)
    angles = np.degrees(np.arccos(np.clip((found * truth).sum(-1), -1, 1)))
    assert angles.max() < 1


@pytest.mark.parametrize("fov", [30.0, 70.0])
def test_a_sphere_before_a_wall_has_exact_normals_up_to_its_outline(fov: float) -> None:
    camera, size, center, radius = Camera(fov=fov), 96, np.array([0.2, -0.1, 6.0]), 1.2
    rays_3P = camera.rays(size, size)
    # 1) Where each ray meets the sphere: the smaller root of |t · ray − center| = radius; elsewhere the wall z = 9
    a, b = (rays_3P**2).sum(0), rays_3P.T @ center
    inside = b**2 - a * (center @ center - radius**2)
    is_sphere = inside > 0
    depth = np.where(is_sphere, (b - np.sqrt(inside.clip(0))) / a, 9.0)
    truth = np.where(is_sphere[:, None], (depth * rays_3P).T - center, [0, 0, -1.0])
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    # 2) The angle to the exact normal
    image = torch.from_numpy(depth.reshape(1, size, size).astype(np.float32))
    found = normals_from_depth(image, camera, CONFIG)[0].numpy().reshape(-1, 3)
    angles = np.degrees(np.arccos(np.clip((found * truth).sum(1), -1, 1)))
    is_steep = (truth * (rays_3P / np.linalg.norm(rays_3P, axis=0)).T).sum(1) > -0.3  # seen within 17 degrees of edge-on
    assert is_sphere.mean() > 0.02
    assert angles[~is_sphere].max() < 0.5, "the wall stays flat up to the outline"
    assert angles[is_sphere & ~is_steep].max() < 12 and angles[is_sphere & ~is_steep].mean() < 2


def test_exact_depth_gives_nearly_exact_normals() -> None:
    rendered = render([scene(0, "val", index, ScenesConfig()) for index in range(20)], ScenesConfig())
    found = np.stack(
        NormalsFromDepth(CONFIG, LabelingContext(CAMERA)).label({"depth": list(rendered.depth.astype(np.float16))})
    )
    angles = normal_angles(found, rendered.normal, rendered.semseg > 0, rendered.semseg > 1)
    assert angles["mean_angle"] < 5
    assert angles["mean_angle_objects"] < 14


def test_normals_are_unit_vectors_toward_the_camera_in_any_batch() -> None:
    depth = np.random.default_rng(0).uniform(4, 5, (11, 16, 24)).astype(np.float32)
    together = normals_from_depth(torch.from_numpy(depth), CAMERA, CONFIG)
    alone = normals_from_depth(torch.from_numpy(depth[4:5]), CAMERA, CONFIG)
    np.testing.assert_allclose(together.norm(dim=-1), 1, atol=1e-5)
    np.testing.assert_allclose(together[4:5], alone, atol=1e-3)
    rays_HW3 = torch.from_numpy(CAMERA.rays(16, 24).T.reshape(16, 24, 3)).float()
    assert ((together * rays_HW3).sum(-1) < 0).all()


@pytest.mark.parametrize(("window", "reach"), [(4, 2), (5, 1)])
def test_even_windows_and_a_short_reach_are_rejected(window: int, reach: int) -> None:
    with pytest.raises(ValueError, match="window must be odd"):
        NormalsConfig(window=window, reach=reach)
