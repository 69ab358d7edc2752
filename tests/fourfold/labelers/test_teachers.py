from pathlib import Path

import numpy as np
import pytest

from fourfold.data.shards import ShardSet
from fourfold.data.work_split import WorkSplit
from fourfold.labelers import LabelingConfig, TeacherSet, integrate_labels, label_shards, measure_teachers, train_teachers
from fourfold.labelers import teachers as teachers_module
from fourfold.labelers.geometry.normals import NormalsConfig
from fourfold.labelers.registry import TeacherEntry
from fourfold.metric_log import NullMetricLog

World = tuple[ShardSet, ShardSet]
MODALITIES = ["clip", "depth", "det", "normal", "semseg"]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def trained(world: World, tiny: LabelingConfig, tmp_path_factory: pytest.TempPathFactory) -> TeacherSet:
    return train_teachers(*world, tiny, 0, tmp_path_factory.mktemp("teachers"), NullMetricLog())


@pytest.fixture(scope="module")
def labels(world: World, trained: TeacherSet, tiny: LabelingConfig, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return label_shards(world[0], trained, tiny, tmp_path_factory.mktemp("labels"))


def test_the_same_seed_gives_the_same_bytes_of_every_teacher(
    world: World, tiny: LabelingConfig, trained: TeacherSet, tmp_path: Path
) -> None:
    again = train_teachers(*world, tiny, 0, tmp_path, NullMetricLog())
    assert files(again.root) == files(trained.root)
    assert again.digest() == trained.digest()


def test_another_seed_gives_other_teachers(world: World, tiny: LabelingConfig, trained: TeacherSet, tmp_path: Path) -> None:
    assert train_teachers(*world, tiny, 1, tmp_path, NullMetricLog()).digest() != trained.digest()


def test_a_killed_training_goes_on_with_the_teacher_that_is_missing(
    world: World, tiny: LabelingConfig, trained: TeacherSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setitem(teachers_module.TEACHERS, "scene", TeacherEntry(killed, killed))
        train_teachers(*world, tiny, 0, tmp_path, NullMetricLog())
    with pytest.raises(ValueError, match="pseudo_labeling"):
        TeacherSet.load(tmp_path)
    finished = (tmp_path / "clip.safetensors").stat().st_mtime_ns
    train_teachers(*world, tiny, 0, tmp_path, NullMetricLog())
    assert files(tmp_path) == files(trained.root)
    assert (tmp_path / "clip.safetensors").stat().st_mtime_ns == finished


def test_labels_have_the_keys_of_the_pictures_and_the_formats_of_their_modalities(
    world: World, labels: ShardSet, trained: TeacherSet
) -> None:
    assert labels.splits() == ["train", "val"]
    for split in labels.splits():
        assert labels.modalities(split) == MODALITIES
        assert labels.keys(split) == world[0].keys(split)
    sample = next(labels.iterate("val", MODALITIES))
    assert {m: (sample[m].shape, sample[m].dtype.name) for m in ("depth", "normal", "semseg", "clip")} == {
        "depth": ((32, 32), "float16"),
        "normal": ((32, 32, 3), "uint8"),
        "semseg": ((32, 32), "uint8"),
        "clip": ((4, 4, 8), "float16"),
    }


def test_labeling_that_was_killed_between_shards_ends_in_the_same_bytes(
    world: World, labels: ShardSet, trained: TeacherSet, tiny: LabelingConfig, tmp_path: Path
) -> None:
    label_shards(world[0], trained, tiny, tmp_path)
    (tmp_path / "train" / "depth" / "shard-00001.tar").unlink()
    (tmp_path / "val" / "det" / "manifest.json").unlink()
    label_shards(world[0], trained, tiny, tmp_path)
    assert files(tmp_path) == files(labels.root)


def test_four_processes_label_their_own_shards_and_a_run_over_the_whole_makes_the_same_bytes(
    world: World, labels: ShardSet, trained: TeacherSet, tiny: LabelingConfig, tmp_path: Path
) -> None:
    (tmp_path / "stale.tar").write_bytes(b"of other settings")
    for index in (2, 0, 3, 1):
        label_shards(world[0], trained, tiny, tmp_path, WorkSplit(index, 4))
    assert not list(tmp_path.rglob("manifest.json"))  # parts do not make a set
    shards = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")}
    label_shards(world[0], trained, tiny, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")} == shards  # nothing was labeled twice
    assert files(tmp_path) == files(labels.root)


def test_a_loaded_set_labels_as_the_trained_one_did(world: World, trained: TeacherSet) -> None:
    pictures = world[0].load_column("val", "rgb")
    loaded = TeacherSet.load(trained.root)
    np.testing.assert_array_equal(loaded.clip.encode_image(pictures)[0], trained.clip.encode_image(pictures)[0])
    np.testing.assert_array_equal(loaded.clip.encode_text(["a red cone"]), trained.clip.encode_text(["a red cone"]))


def test_predicted_features_are_pooled_into_the_vector_of_the_picture(world: World, trained: TeacherSet) -> None:
    features, vectors = trained.clip.encode_image(world[0].load_column("val", "rgb"))
    stored = features.astype(np.float16)
    np.testing.assert_allclose(trained.clip.pool(stored), vectors, atol=5e-3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_every_modality_is_measured_on_truth(world: World, trained: TeacherSet, labels: ShardSet) -> None:
    figures = measure_teachers(trained, world[0], labels, world[1])
    assert set(figures) == {
        "depth/abs_rel",
        "depth/delta1",
        "normal/mean_angle",
        "normal/mean_angle_objects",
        "semseg/miou",
        "semseg/miou_objects",
        "det/ap50",
        "clip/recall_at_1",
    }
    assert all(np.isfinite(value) for value in figures.values())


def test_integration_keeps_every_sample_and_filters_only_boxes(
    world: World, labels: ShardSet, tiny: LabelingConfig, tmp_path: Path
) -> None:
    integrated, report = integrate_labels(labels, world[0], tiny, tmp_path)
    assert integrated.keys("val") == world[0].keys("val")
    for modality in ("clip", "depth", "normal", "semseg"):
        name = f"val/{modality}/shard-00000.tar"
        assert (integrated.root / name).read_bytes() == (labels.root / name).read_bytes()
    raw = sum(len(value["instances"]) for value in labels.load_column("val", "det"))
    kept = sum(len(value["instances"]) for value in integrated.load_column("val", "det"))
    assert report["val"]["boxes/kept"] == kept
    assert sum(value for name, value in report["val"].items() if name.startswith("boxes/")) == raw


def test_other_normals_need_new_labels_but_no_new_teachers(
    world: World, trained: TeacherSet, labels: ShardSet, tiny: LabelingConfig
) -> None:
    weights = files(trained.root)["scene.safetensors"]
    before = (trained.root / "scene.safetensors").stat().st_mtime_ns
    changed = tiny.model_copy(update={"normals": NormalsConfig(window=5, reach=2)})
    teachers = train_teachers(*world, changed, 0, trained.root, NullMetricLog())
    assert (trained.root / "scene.safetensors").stat().st_mtime_ns == before
    assert files(teachers.root)["scene.safetensors"] == weights
    old = labels.digest()
    assert label_shards(world[0], teachers, changed, labels.root).digest() != old
