import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fourfold.scenes.world import SHAPES, solids
from tests.fourfold.scenes.world.solid_references import implicit

ABOVE = st.tuples(st.floats(-3, 3), st.floats(2.0, 5.0), st.floats(-6, -3))  # where a camera may be
TARGET = st.tuples(st.floats(-1.2, 1.2), st.floats(0.02, 2.2), st.floats(-1.2, 1.2))
SIZE = st.tuples(st.floats(0.2, 1.0), st.floats(0.4, 2.5))


def _meet(shape, origin, ray, radius, height):
    if shape in ("sphere", "box"):
        height = 2 * radius
    column = [np.array(v, dtype=np.float32)[:, None] for v in (origin, ray)]
    size = [np.array([v], dtype=np.float32) for v in (radius, height)]
    (enter,), (leave,) = solids.intersect(shape, column[0], column[1], *size)
    return float(enter), float(leave), height


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=80, deadline=None)
@given(origin=ABOVE, target=TARGET, size=SIZE)
def test_a_ray_enters_at_the_first_point_inside(shape, origin, target, size):
    origin, ray, (radius, height) = np.array(origin), np.subtract(target, origin), size
    enter, leave, height = _meet(shape, origin, ray, radius, height)
    along = np.linspace(0, 3, 3001)
    inside = implicit(shape, *(origin[:, None] + ray[:, None] * along), radius, height)
    if np.isinf(enter):
        assert inside.min() > -2e-3  # at most grazed
        return
    assert abs(implicit(shape, *(origin + ray * enter), radius, height)) < 1e-3
    assert inside[along < enter - 1e-3].min(initial=1.0) > -1e-3
    if inside.min() < -2e-3:
        assert abs(along[np.argmax(inside < 0)] - enter) < 0.02
    assert leave >= enter


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=80, deadline=None)
@given(start=st.tuples(st.floats(-2, 2), st.just(0.0), st.floats(-2, 2)), light=TARGET, size=SIZE)
def test_a_shadow_ray_is_blocked_by_a_solid_on_its_way(shape, start, light, size):
    start, (radius, height) = np.array(start), size
    assume(np.hypot(start[0], start[2]) > 1.5 * radius)  # under the object, shadows are never computed
    ray = np.array([light[0], light[1] + 0.3, light[2]])
    _, leave, height = _meet(shape, start, ray, radius, height)
    along = np.linspace(0, 12, 3001)
    inside = implicit(shape, *(start[:, None] + ray[:, None] * along), radius, height)
    if inside.min() < -5e-3:
        assert leave > 0
    if inside.min() > 5e-3:
        assert not leave > 0


@pytest.mark.parametrize("shape", SHAPES)
@settings(max_examples=60, deadline=None)
@given(origin=ABOVE, target=TARGET, size=SIZE)
def test_normals_have_unit_length_and_point_outward(shape, origin, target, size):
    origin, ray, (radius, height) = np.array(origin), np.subtract(target, origin), size
    enter, _, height = _meet(shape, origin, ray, radius, height)
    if np.isinf(enter):
        return
    point = origin + ray * enter
    sizes = [np.array([v], dtype=np.float32) for v in (radius, height)]
    normal = solids.outward(shape, point.astype(np.float32)[:, None], *sizes)[:, 0].astype(np.float64)
    assert np.linalg.norm(normal) == pytest.approx(1, abs=1e-5)
    step = 5e-3
    if min(np.hypot(point[0], point[2]), abs(height - point[1])) > 2 * step:  # the tip of a cone and rims have no normal
        out, into = (implicit(shape, *(point + sign * step * normal), radius, height) for sign in (1, -1))
        assert out > 0.5 * step
        assert into < out


def test_a_ray_away_from_the_solid_misses_it():
    for shape in SHAPES:
        enter, leave, _ = _meet(shape, (0.1, 3.0, -4.0), (0.0, 1.0, -2.0), 0.5, 1.0)
        assert not (0 < enter < np.inf)
        assert not leave > 0
