"""Training of a set of specialists: the same bytes, also after a kill, and clear errors."""

import pytest

from fourfold.data.missing import Missing
from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.specialists import fitting
from fourfold.specialists.config import SpecialistsConfig
from fourfold.specialists.fitting import load_labeled
from fourfold.specialists.training import SPECIALISTS_FOLDER, SpecialistSet, train_specialists, weights_file
from fourfold.training.run_context import RunContext
from tests.fourfold.specialists.tiny_scenes import columns, shard_sets

FIT = {"steps": 3, "batch_size": 4}
DETECTOR = {"widths": [8, 8, 16], "blocks": [1, 1, 1], "pyramid_width": 32, "fit": FIT}
SETTINGS = {
    "unet_depth": {"width": 4, "depth": 2, "fit": FIT},
    "unet_segmentation": {"width": 4, "depth": 2, "fit": FIT},
    "faster_rcnn": DETECTOR,
    "fcos": DETECTOR,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return shard_sets(tmp_path_factory.mktemp("data"), 8)


def trained(data, folder, **settings) -> dict[str, bytes]:
    config = SpecialistsConfig(settings=SETTINGS, **{"finetuned": []} | settings)
    found = train_specialists(*data, config, RunContext(0, folder))
    return {path.name: path.read_bytes() for path in found.root.rglob("*.safetensors")}


def test_every_specialist_is_reproducible_to_the_byte_and_each_seed_differs(data, tmp_path):
    first, second = trained(data, tmp_path / "a", num_seeds=2), trained(data, tmp_path / "b")
    assert set(first) == {weights_file(name, seed) for name in SETTINGS for seed in (0, 1)}
    assert second == {name: first[name] for name in second} and len(second) == 4 and len(set(first.values())) == 8
    found = SpecialistSet.load(tmp_path / "a")
    costs = [found.costs(one) for one in found.config.chosen()]
    assert all(len(each) == 2 and each[0]["steps"] == 3 for each in costs)
    assert found.digest() != SpecialistSet.load(tmp_path / "b").digest()


def test_a_killed_training_ends_in_the_same_bytes(data, tmp_path, monkeypatch):
    whole = trained(data, tmp_path / "whole", models=["faster_rcnn"])
    numbers = fitting.numpy_generator

    def killed_at_the_last_step(seed, *path):
        if path == ("mirrors", 2):
            raise KeyboardInterrupt
        return numbers(seed, *path)

    monkeypatch.setattr(fitting, "LoopConfig", lambda **o: fitting_loop(**o))
    monkeypatch.setattr(fitting, "numpy_generator", killed_at_the_last_step)
    with pytest.raises(KeyboardInterrupt):
        trained(data, tmp_path / "killed", models=["faster_rcnn"])
    assert list((tmp_path / "killed").rglob("step-*"))
    seen = []
    monkeypatch.setattr(fitting, "numpy_generator", lambda seed, *path: (seen.append(path), numbers(seed, *path))[1])
    assert trained(data, tmp_path / "killed", models=["faster_rcnn"]) == whole
    assert seen == [("mirrors", 2)]  # the checkpoint in progress was completed


def fitting_loop(**options):
    from fourfold.training.config import LoopConfig

    return LoopConfig(checkpoint_every=1, **options)


def test_what_is_trained_is_kept_and_damage_is_trained_again(data, tmp_path, monkeypatch):
    models = ["unet_depth", "unet_segmentation"]
    before = trained(data, tmp_path, models=models)
    path = tmp_path / SPECIALISTS_FOLDER / weights_file("unet_depth", 0)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="changed after it was written"):
        SpecialistSet.load(tmp_path)
    other = path.with_name(weights_file("unet_segmentation", 0))
    kept = other.stat().st_mtime_ns
    assert trained(data, tmp_path, models=models) == before
    assert other.stat().st_mtime_ns == kept


def test_images_that_lack_the_label_are_left_out(tmp_path, caplog):
    found = columns("train", 4)
    depths = [(key, Missing("too dark") if row == 1 else value) for row, (key, value) in enumerate(found["depth"])]
    for name, content in (("shards", {"rgb": found["rgb"]}), ("labels", {"depth": depths})):
        write_columns(tmp_path / name, "train", shard_name(0), content)
        finish_split(tmp_path / name, "train", list(content))
    shards, labels = ShardSet(tmp_path / "shards"), ShardSet(tmp_path / "labels")
    read = load_labeled(shards, labels, "depth", 10)
    assert len(read) == 3 and (read.rgb[1] == found["rgb"][2][1]).all() and (read.values[1] == depths[2][1]).all()
    assert "1 images without this label" in caplog.text
    assert len(load_labeled(shards, labels, "depth", 2)) == 2


def test_a_folder_without_a_finished_set_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no specialists"):
        SpecialistSet.load(tmp_path)


def test_a_label_that_nobody_made_is_an_error(data, tmp_path):
    shards, _ = data
    with pytest.raises(ValueError, match="'unet_depth' learns 'depth', and the labels are: rgb"):
        train_specialists(shards, shards, SpecialistsConfig(), RunContext(0, tmp_path))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"models": ["yolo"]}, "specialist 'yolo'"),
        ({"models": []}, "one or more different"),
        ({"settings": {"fcos": {"pyramid_width": 40}}}, "specialists.settings.fcos.pyramid_width"),
        ({"settings": {"unet": {}}}, "Unknown specialist 'unet'"),
        ({"models": ["finetuned_depth"]}, "belongs into specialists.finetuned"),
        ({"finetuned": ["fcos"]}, "belongs into specialists.models"),
        ({"finetuned": ["finetuned_depth"] * 2}, "each specialist can be there once"),
    ],
)
def test_settings_that_are_wrong_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        SpecialistsConfig.model_validate(values)
