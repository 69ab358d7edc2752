from typing import Any

import pytest
from pydantic import ValidationError

from fourfold.labelers import LABELERS, Labeler, LabelingConfig, Teacher, register
from fourfold.labelers.protocol import Batch, in_order
from fourfold.plugins import load_plugins
from fourfold.scenes.teachers.labelers import SCENE_NETWORK

load_plugins(["fourfold.scenes"])


class Fixed(Labeler):
    name, title, modality = "fixed", "Zeros", "depth"

    def __init__(self, *requires: str) -> None:
        super().__init__()
        self.requires = requires

    def label(self, batch: Batch, output: Any = None) -> list[Any]:
        return [0] * len(batch["__key__"])


def test_an_unknown_labeler_suggests_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="Did you mean 'scene_depth'"):
        LabelingConfig(labelers={"depth": "scene_dpeth"})


def test_a_labeler_cannot_be_chosen_for_another_modality() -> None:
    with pytest.raises(ValueError, match="produces 'depth', not 'semseg'"):
        LabelingConfig(labelers={"semseg": "scene_depth"})


def test_a_registered_labeler_can_be_chosen_and_its_name_is_unique() -> None:
    register(Fixed)
    assert LabelingConfig(labelers={"depth": "fixed"}).labeler_classes() == {"depth": Fixed}
    with pytest.raises(ValueError, match="Two entries are registered as labeler 'fixed'"):
        register(type("Other", (Fixed,), {}))


def test_two_teachers_cannot_have_one_name() -> None:
    other = Teacher("scene_network", *(getattr(SCENE_NETWORK, name) for name in ("config_class", "train", "build", "predict")))
    with pytest.raises(ValueError, match="Two teachers have the name 'scene_network'"):
        register(type("Other", (Fixed,), {"name": "other", "teacher": other}))


def test_labelers_run_after_those_whose_labels_they_require() -> None:
    labelers: dict[str, Labeler] = {"a": Fixed("b"), "b": Fixed("c", "rgb"), "c": Fixed("rgb")}
    assert in_order(labelers, ("rgb",)) == [labelers["c"], labelers["b"], labelers["a"]]


def test_a_required_column_that_nobody_produces_is_named() -> None:
    with pytest.raises(ValueError, match=r"'a': \['edges'\]"):
        in_order({"a": Fixed("edges")}, ("rgb",))


def test_every_labeler_has_a_title_and_default_settings() -> None:
    for name, entry in LABELERS.items():
        assert entry.name == name
        assert entry.title
        try:
            entry.config_class()
        except ValidationError as error:  # which network is used cannot have a default
            assert {found["loc"][0] for found in error.errors()} <= {"model", "path", "weights", "classes", "of"}, name
