import dataclasses
import sys

import numpy as np
import pytest

from fourfold.scenes.world import CLASS_NAMES, Scene, SceneObject, ScenesConfig, render, scene
from tests.fourfold.scenes.world.solid_references import gradient, implicit_of

CONFIG = ScenesConfig()
SCENES = [scene(3, "test", index, CONFIG) for index in range(80)]
FULL = render(SCENES, CONFIG)
RENDER = sys.modules["fourfold.scenes.world.render"]


def _points(depth_HW: np.ndarray, config: ScenesConfig = CONFIG) -> np.ndarray:
    rays_3P = config.camera.rays(*depth_HW.shape)
    return config.camera.to_world(rays_3P * depth_HW.ravel()) + np.array([[0], [config.camera.height], [0]])


def _fields(batch):
    return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}


def test_a_sample_does_not_depend_on_its_batch():
    for rows in ([5], [7, 5], [5, 60, 1, 2, 3, 70, 71], range(5, 80)):
        part = render([SCENES[row] for row in rows], CONFIG)
        at = list(rows).index(5)
        num = len(SCENES[5].objects)
        for name, values in _fields(part).items():
            whole = getattr(FULL, name)[5]
            if name in ("boxes", "visible", "num_pixels"):
                assert values[at][:num].tobytes() == whole[:num].tobytes(), name
            else:
                assert values[at].tobytes() == whole.tobytes(), name


def test_the_number_of_threads_does_not_matter(monkeypatch):
    monkeypatch.setattr(RENDER, "CHUNK_PIXELS", 3 * 64 * 64)
    for threads in (1, 5):
        monkeypatch.setattr(RENDER, "_num_threads", lambda count=threads: count)
        again = render(SCENES[:20], CONFIG)
        assert again.rgb.tobytes() == FULL.rgb[:20].tobytes()
        assert again.normal.tobytes() == FULL.normal[:20].tobytes()


def test_tracing_only_candidate_pixels_changes_nothing(monkeypatch):
    reach = sys.modules["fourfold.scenes.world.reach"]

    def everywhere(corners_3MN, config):
        count, size = corners_3MN.shape[1], config.image_size
        return tuple(np.full(count, edge) for edge in (0, 0, size, size))

    monkeypatch.setattr(reach, "_rectangles", everywhere)
    again = render(SCENES[:24], CONFIG)
    for name in ("rgb", "depth", "normal", "instance"):
        assert getattr(again, name).tobytes() == getattr(FULL, name)[:24].tobytes(), name


def test_depth_times_ray_is_on_the_first_surface():
    for row, one in enumerate(SCENES):
        point_3P = _points(FULL.depth[row])
        instance_P = FULL.instance[row].ravel()
        distance_KP = np.stack([implicit_of(solid, point_3P) for solid in one.objects])
        for slot in range(len(one.objects)):
            assert np.abs(distance_KP[slot, instance_P == slot]).max() < 5e-4
        assert distance_KP.min() > -5e-4  # the first surface: never behind another
        ground_P = FULL.semseg[row].ravel() == CLASS_NAMES.index("ground")
        assert np.abs(point_3P[1, ground_P]).max() < 1e-4


def test_no_ray_passes_through_a_surface():
    for row in range(0, 80, 8):
        for share in np.linspace(0.2, 0.999, 25):
            point_3P = _points(FULL.depth[row] * share)
            for solid in SCENES[row].objects:
                assert implicit_of(solid, point_3P).min() > -2e-3


def test_normals_have_unit_length_and_follow_the_surface():
    assert np.linalg.norm(FULL.normal, axis=3) == pytest.approx(1, abs=1e-5)
    rays_3P = CONFIG.camera.rays(64, 64)
    for row, one in enumerate(SCENES):
        normal_3P = FULL.normal[row].reshape(-1, 3).T
        assert (normal_3P * rays_3P).sum(axis=0).max() < 5e-3
        assert FULL.normal[row, ..., 2][FULL.instance[row] < 0].max() < 0
        point_3P, instance_P = _points(FULL.depth[row]), FULL.instance[row].ravel()
        for slot, solid in enumerate(one.objects):
            of_slot = instance_P == slot
            wanted_3N = CONFIG.camera.to_camera(gradient(solid, point_3P[:, of_slot]))
            agreement = (wanted_3N * normal_3P[:, of_slot]).sum(axis=0)
            assert np.mean(agreement > 0.999) > 0.97  # all but edges, where the gradient is not defined


def test_classes_follow_the_objects_and_the_sky_has_the_far_depth():
    for row, one in enumerate(SCENES):
        for slot, solid in enumerate(one.objects):
            assert set(FULL.semseg[row][FULL.instance[row] == slot]) == {CLASS_NAMES.index(solid.shape)}
        assert set(FULL.semseg[row][FULL.instance[row] < 0]) <= {0, 1}
    sky = FULL.semseg == 0
    assert (FULL.depth[sky] == CONFIG.far).all()
    assert (FULL.depth[~sky] < CONFIG.far).all()
    assert FULL.depth.min() > 0


def test_boxes_enclose_the_visible_pixels_and_touch_them():
    for row, one in enumerate(SCENES):
        for slot in range(len(one.objects)):
            mask = FULL.instance[row] == slot
            rows, columns = np.nonzero(mask)
            wanted = [columns.min() / 64, rows.min() / 64, (columns.max() + 1) / 64, (rows.max() + 1) / 64]
            assert FULL.boxes[row, slot] == pytest.approx(wanted)
            assert FULL.num_pixels[row, slot] == mask.sum()


def test_visible_shares_compare_with_the_object_rendered_alone():
    for row, one in enumerate(SCENES[:30]):
        for slot, solid in enumerate(one.objects):
            alone = render([dataclasses.replace(one, objects=(solid,))], CONFIG)
            share = FULL.num_pixels[row, slot] / alone.num_pixels[0, 0]
            assert FULL.visible[row, slot] == pytest.approx(share, abs=1e-6)
            assert FULL.visible[row, slot] > 0.4


def test_objects_are_entirely_in_view():
    objects = FULL.instance >= 0
    for border in (objects[:, 0], objects[:, -1], objects[:, :, 0], objects[:, :, -1]):
        assert not border.any()


def _one_object(**changes) -> Scene:
    solid = SceneObject("sphere", "red", "plain", "large", 0.0, 4.5, 0.0, 0.8, 1.6)
    return dataclasses.replace(SCENES[0], objects=(dataclasses.replace(solid, **changes),), floor="plain",
                               floor_tones=((0.7, 0.7, 0.7),) * 2)  # fmt: skip


@pytest.mark.parametrize("shape", ["sphere", "box", "cylinder", "cone"])
def test_the_ground_is_dark_exactly_where_light_is_blocked(shape):
    one = dataclasses.replace(_one_object(shape=shape, yaw=0.4), light=(0.6, 0.64, -0.48))
    bare = dataclasses.replace(one, objects=(dataclasses.replace(one.objects[0], x=0.0, z=-9.0),))  # behind the camera
    seen, empty = render([one], CONFIG), render([bare], CONFIG)
    point_3P = _points(seen.depth[0])
    along = np.linspace(0, 6, 300)
    light = np.array(one.light)
    nearest_P = np.array([implicit_of(one.objects[0], p[:, None] + light[:, None] * along).min() for p in point_3P.T])
    ground_P = (seen.semseg[0].ravel() == 1) & ~_beside_object(seen.instance[0]).ravel()
    darker_P = (empty.rgb[0].astype(int) - seen.rgb[0]).mean(axis=2).ravel()
    assert (darker_P[ground_P & (nearest_P < -0.08)] > 20).all()
    assert (darker_P[ground_P & (nearest_P > 0.08)] == 0).all()
    assert (ground_P & (nearest_P < -0.08)).sum() > 8


def _beside_object(instance_HW: np.ndarray) -> np.ndarray:
    padded = np.pad(instance_HW >= 0, 1)
    return np.any([padded[r : r + 64, c : c + 64] for r in range(3) for c in range(3)], axis=0)


def test_an_object_casts_a_shadow_on_another():
    near, far = (dataclasses.replace(_one_object().objects[0], x=x) for x in (-0.6, 1.2))
    scene_of = lambda *solids: dataclasses.replace(_one_object(), objects=solids, light=(-0.86, 0.3, -0.41))  # noqa: E731
    both, alone = render([scene_of(near, far)], CONFIG), render([scene_of(far)], CONFIG)
    visible = (both.instance[0] == 1) & ~_beside_object(np.where(both.instance[0] == 0, 0, -1))
    darker = alone.rgb[0].astype(int).sum(axis=2) - both.rgb[0].astype(int).sum(axis=2)
    assert (darker[visible] > 60).sum() > 10


def test_images_agree_with_supersampling():
    """The reference: the same scenes at eight times the size, averaged in linear light."""
    fine = render(SCENES[:8], CONFIG.model_copy(update={"image_size": 512})).rgb
    linear = (fine / 255.0) ** 2
    wanted = np.sqrt(linear.reshape(8, 64, 8, 64, 8, 3).mean(axis=(2, 4))) * 255
    difference = np.abs(wanted - FULL.rgb[:8])
    assert difference.mean() < 1.0
    assert np.quantile(difference, 0.99) < 16


def test_stripes_alternate_with_near_white():
    striped, plain = render([_one_object(texture="striped"), _one_object()], CONFIG).rgb.astype(int)
    column = slice(30, 34)
    rows = np.nonzero(render([_one_object()], CONFIG).instance[0][:, 32] >= 0)[0][1:-1]
    blueness = striped[rows, column, 2].mean(axis=1)
    assert ((blueness[1:] > 110) != (blueness[:-1] > 110)).sum() == 4  # red white red white red
    assert plain[rows[2:-2], column, 2].max() < 110


def test_other_sizes_and_many_objects_are_rendered():
    config = ScenesConfig(image_size=96, max_objects=4, large=0.5, small=0.35)
    batch = render([scene(0, "train", index, config) for index in range(40)], config)
    assert batch.rgb.shape == (40, 96, 96, 3)
    assert batch.boxes.shape[1] == 4
    with pytest.raises(ValueError, match="no scenes"):
        render([], config)
