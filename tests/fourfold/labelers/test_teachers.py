import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fourfold.data.shards import ShardSet
from fourfold.data.work_split import WorkSplit
from fourfold.labelers import LabelingConfig, TeacherSet, integrate_labels, label_shards, measure_teachers, train_teachers
from fourfold.labelers.mini_clip.network import MiniClip
from fourfold.metric_log import NullMetricLog
from fourfold.scenes.teachers.labelers import SCENE_NETWORK
from fourfold.scenes.world import CLASS_TABLE
from fourfold.training.loop import _Loop
from tests.fourfold.killing import files_of, kill_in_step

Data = tuple[ShardSet, ShardSet]  # images and truth
MODALITIES = ["clip", "depth", "det", "normal", "semseg"]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def trained(data: Data, tiny: LabelingConfig, tmp_path_factory: pytest.TempPathFactory) -> TeacherSet:
    return train_teachers(*data, tiny, 0, tmp_path_factory.mktemp("teachers"), NullMetricLog())


@pytest.fixture(scope="module")
def labels(data: Data, trained: TeacherSet, tiny: LabelingConfig, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return label_shards(data[0], trained, tiny, tmp_path_factory.mktemp("labels"))


def test_the_same_seed_gives_identical_teachers(data: Data, tiny: LabelingConfig, trained: TeacherSet, tmp_path: Path) -> None:
    again = train_teachers(*data, tiny, 0, tmp_path, NullMetricLog())
    assert files(again.root) == files(trained.root)
    assert again.digest() == trained.digest()


def test_the_curves_of_each_training_are_kept(trained: TeacherSet) -> None:
    found = trained.histories()
    assert sorted(found) == ["mini_clip", "scene_network"] == sorted(TeacherSet.load(trained.root).histories())
    for history in found.values():
        steps = [row["step"] for row in history]
        assert steps == sorted(steps) and steps[-1] >= 1 and all(np.isfinite(row["loss"]) for row in history)


def test_another_seed_gives_other_teachers(data: Data, tiny: LabelingConfig, trained: TeacherSet, tmp_path: Path) -> None:
    assert train_teachers(*data, tiny, 1, tmp_path, NullMetricLog()).digest() != trained.digest()


def test_an_interrupted_training_resumes_with_the_missing_teacher(
    one_thread: None, data: Data, tiny: LabelingConfig, trained: TeacherSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    killed.__module__ = SCENE_NETWORK.train.__module__  # the modules of teachers are part of the fingerprint
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        stopped = {**tiny.required_teachers(), "scene_network": replace(SCENE_NETWORK, train=killed)}
        patched.setattr(LabelingConfig, "required_teachers", lambda self: stopped)
        train_teachers(*data, tiny, 0, tmp_path, NullMetricLog())
    with pytest.raises(ValueError, match="pseudo_labeling"):
        TeacherSet.load(tmp_path)
    finished = (tmp_path / "mini_clip.safetensors").stat().st_mtime_ns
    train_teachers(*data, tiny, 0, tmp_path, NullMetricLog())
    assert files(tmp_path) == files(trained.root)
    assert (tmp_path / "mini_clip.safetensors").stat().st_mtime_ns == finished


def test_a_killed_teacher_resumes_in_the_middle_and_ends_with_equal_bytes(
    one_thread: None, data: Data, tiny: LabelingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_teachers(*data, tiny, 0, tmp_path / "whole", NullMetricLog())
    monkeypatch.setattr(_Loop, "_is_due", lambda self: True)  # a checkpoint after every step
    killed = tmp_path / "killed"
    kill_in_step(2, lambda: train_teachers(*data, tiny, 0, killed, NullMetricLog()))
    assert list(killed.glob("*-checkpoints/step-*")) and not list(killed.glob("*.safetensors"))
    train_teachers(*data, tiny, 0, killed, NullMetricLog())
    assert files_of(killed) == files_of(tmp_path / "whole")


def test_a_changed_teacher_is_not_loaded_and_is_trained_again(
    data: Data, tiny: LabelingConfig, trained: TeacherSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "teachers"
    shutil.copytree(trained.root, folder)
    weights = bytearray((folder / "scene_network.safetensors").read_bytes())
    weights[-5] ^= 1
    (folder / "scene_network.safetensors").write_bytes(weights)
    with pytest.raises(
        ValueError, match=r"scene_network.safetensors changed .* expected [0-9a-f]{64}.*Run the pseudo_labeling"
    ):
        TeacherSet.load(folder)
    train_teachers(*data, tiny, 0, folder, NullMetricLog())
    assert caplog.text.count("again.") == 1 and "Training it again." in caplog.text and files(folder) == files(trained.root)


def test_labels_have_the_keys_of_images_and_the_formats_of_modalities(
    data: Data, labels: ShardSet, trained: TeacherSet
) -> None:
    assert labels.splits() == ["train", "val"]
    assert labels.class_table("val") == CLASS_TABLE
    for split in labels.splits():
        assert labels.modalities(split) == MODALITIES
        assert labels.keys(split) == data[0].keys(split)
    sample = next(labels.iterate("val", MODALITIES))
    assert {m: (sample[m].shape, sample[m].dtype.name) for m in ("depth", "normal", "semseg", "clip")} == {
        "depth": ((32, 32), "float16"),
        "normal": ((32, 32, 3), "uint8"),
        "semseg": ((32, 32), "uint8"),
        "clip": ((4, 4, 8), "float16"),
    }


def test_interrupted_labeling_resumes_to_the_same_bytes(
    data: Data, labels: ShardSet, trained: TeacherSet, tiny: LabelingConfig, tmp_path: Path
) -> None:
    label_shards(data[0], trained, tiny, tmp_path)
    (tmp_path / "train" / "depth" / "shard-00001.tar").unlink()
    (tmp_path / "val" / "det" / "manifest.json").unlink()
    label_shards(data[0], trained, tiny, tmp_path)
    assert files(tmp_path) == files(labels.root)


def test_labeling_in_four_processes_gives_the_same_bytes(
    data: Data, labels: ShardSet, trained: TeacherSet, tiny: LabelingConfig, tmp_path: Path
) -> None:
    (tmp_path / "stale.tar").write_bytes(b"of other settings")
    for index in (2, 0, 3, 1):
        label_shards(data[0], trained, tiny, tmp_path, WorkSplit(index, 4))
    assert not list(tmp_path.rglob("manifest.json"))  # parts do not make a set
    shards = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")}
    label_shards(data[0], trained, tiny, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")} == shards  # nothing was labeled twice
    assert files(tmp_path) == files(labels.root)


def test_a_loaded_set_gives_the_labels_of_the_trained_one(data: Data, trained: TeacherSet) -> None:
    images = data[0].load_column("val", "rgb")
    loaded = TeacherSet.load(trained.root)
    one, two = (teachers.image_text_encoder("mini_clip") for teachers in (loaded, trained))
    np.testing.assert_array_equal(one.encode_image(images)[0], two.encode_image(images)[0])
    np.testing.assert_array_equal(one.encode_text(["a red cone"]), two.encode_text(["a red cone"]))


def test_pooled_features_are_the_vector_of_the_image(data: Data, trained: TeacherSet) -> None:
    encoder = trained.image_text_encoder("mini_clip")
    features, vectors = encoder.encode_image(data[0].load_column("val", "rgb"))
    stored = features.astype(np.float16)
    np.testing.assert_allclose(encoder.pool(stored), vectors, atol=5e-3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_every_modality_is_measured_on_truth(data: Data, trained: TeacherSet, labels: ShardSet) -> None:
    metrics = measure_teachers(trained, data[0], labels, data[1])
    assert set(metrics) == {
        "depth/abs_rel",
        "depth/delta1",
        "normal/mean_angle",
        "normal/mean_angle_objects",
        "semseg/miou",
        "semseg/miou_objects",
        "det/ap50",
        "clip/recall_at_1",
    }
    assert all(np.isfinite(value) for value in metrics.values())


def test_integration_keeps_all_samples_and_filters_only_boxes(
    data: Data, labels: ShardSet, tiny: LabelingConfig, tmp_path: Path
) -> None:
    integrated, report = integrate_labels(labels, data[0], tiny, tmp_path)
    assert integrated.keys("val") == data[0].keys("val")
    for modality in ("clip", "depth", "normal", "semseg"):
        name = f"val/{modality}/shard-00000.tar"
        assert (integrated.root / name).read_bytes() == (labels.root / name).read_bytes()
    raw = sum(len(value["instances"]) for value in labels.load_column("val", "det"))
    kept = sum(len(value["instances"]) for value in integrated.load_column("val", "det"))
    assert report["val"]["boxes/kept"] == kept
    assert sum(value for name, value in report["val"].items() if name.startswith("boxes/")) == raw


def test_new_settings_of_normals_need_no_new_teachers(
    data: Data, trained: TeacherSet, labels: ShardSet, tiny: LabelingConfig, tmp_path: Path
) -> None:
    root, made = shutil.copytree(trained.root, tmp_path / "teachers"), shutil.copytree(labels.root, tmp_path / "labels")
    weights = files(root)["scene_network.safetensors"]
    before = (root / "scene_network.safetensors").stat().st_mtime_ns
    changed = LabelingConfig.model_validate(tiny.model_dump() | {"settings": {"normals_from_depth": {"window": 5, "reach": 2}}})
    teachers = train_teachers(*data, changed, 0, root, NullMetricLog())
    assert (root / "scene_network.safetensors").stat().st_mtime_ns == before
    assert files(teachers.root)["scene_network.safetensors"] == weights
    assert label_shards(data[0], teachers, changed, made).digest() != labels.digest()


def test_an_unknown_encoder_is_an_error_that_lists_the_encoders(trained: TeacherSet) -> None:
    assert list(trained.image_text_encoders()) == ["mini_clip"]
    assert isinstance(trained.image_text_encoder("mini_clip"), MiniClip)
    with pytest.raises(ValueError, match="Unknown image-text encoder 'clip'"):
        trained.image_text_encoder("clip")


def test_labelers_leave_the_batch_unchanged(data: Data, trained: TeacherSet) -> None:
    batch = {"rgb": np.stack(data[0].load_column("val", "rgb"))}
    before = {name: values.copy() for name, values in batch.items()}
    outputs = trained.predict(batch)
    assert set(outputs) == {"mini_clip", "scene_network"}
    for labeler in trained.labelers():
        if labeler.teacher:
            assert len(labeler.label(batch, outputs[labeler.teacher.name])) == len(batch["rgb"])
    assert batch.keys() == before.keys()
    np.testing.assert_array_equal(batch["rgb"], before["rgb"])


@pytest.mark.slow
def test_labels_in_a_bucket_are_those_of_a_folder(data, tiny, trained, labels, bucket, tmp_path, one_thread):
    """In several processes, and as two shares of the work: each shard is uploaded once."""
    wanted, report = integrate_labels(labels, data[0], tiny, tmp_path / "local")
    torch.set_num_threads(2)  # processes
    for index in range(2):
        label_shards(data[0], trained, tiny, tmp_path / "raw", WorkSplit(index, 2), shards_at=bucket.place)
    uploads = bucket.uploads()
    raw = label_shards(data[0], trained, tiny, tmp_path / "raw", shards_at=bucket.place)
    assert raw.digest() == labels.digest() and bucket.uploads() == uploads == len(digests_of(raw))
    # What integration leaves as it is has no second copy, wherever the raw labels are
    for one, name in ((raw, "shards"), (labels, "mixed")):
        made, found = integrate_labels(one, data[0], tiny, tmp_path / name, shards_at=bucket.place)
        made.verify()
        assert (made.digest(), found) == (wanted.digest(), report)
        assert bucket.uploads() == len(digests_of(raw) | digests_of(made)) < len(digests_of(raw)) + len(digests_of(made))
    assert {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.tar")} == {"local"}
    assert not list(tmp_path.rglob(".partial-*"))


def digests_of(labels):
    """Return the SHA-256 of all shards."""
    manifests = [labels.manifest(split, modality) for split in labels.splits() for modality in labels.modalities(split)]
    return {digest for manifest in manifests for digest in manifest.sha256_by_shard.values()}
