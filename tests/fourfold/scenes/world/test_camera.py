import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fourfold.scenes.world import SceneCamera

CAMERAS = st.builds(SceneCamera, fov=st.floats(20, 90), height=st.floats(0.5, 5), pitch=st.floats(0, 45))


@given(CAMERAS, st.integers(0, 47), st.integers(0, 63), st.floats(1, 20))
def test_projection_inverts_back_projection(camera, row, column, depth):
    ray = camera.rays(48, 64).reshape(3, 48, 64)[:, row, column]
    x, y, z = camera.to_world(ray[:, None] * depth)[:, 0]
    right, down = camera.view().project(x, y + camera.height, z)
    assert (right * 24 + 32, down * 24 + 24) == pytest.approx((column + 0.5, row + 0.5), abs=1e-6)


@given(CAMERAS, st.tuples(*[st.floats(-1, 1)] * 3))
def test_the_change_of_frame_is_its_own_inverse(camera, vector):
    vector = np.array(vector)[:, None]
    there = camera.to_world(vector)
    assert np.linalg.norm(there) == pytest.approx(np.linalg.norm(vector), abs=1e-9)
    assert camera.to_camera(there) == pytest.approx(vector, abs=1e-9)


def test_the_field_of_view_spans_the_shorter_side():
    fx, fy, cx, cy = SceneCamera(fov=90).intrinsics(60, 80)
    assert (fx, fy, cx, cy) == pytest.approx((30, 30, 40, 30))


def test_up_is_up_and_toward_a_camera_that_looks_down():
    up = SceneCamera(pitch=18).to_camera(np.array([0.0, 1.0, 0.0]))
    assert up[0] == 0
    assert up[1] < 0  # camera y points down
    assert up[2] < 0  # a visible surface faces the camera


def test_an_impossible_camera_is_rejected():
    with pytest.raises(ValidationError):
        SceneCamera(fov=200)
