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
