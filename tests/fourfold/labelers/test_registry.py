from typing import Any

import pytest

from fourfold.labelers import Labeler, LabelerEntry, LabelingConfig, labeler, register
from fourfold.labelers.protocol import Batch, in_order
from fourfold.labelers.registry import LABELERS


class Fixed:
    version = "1"

    def __init__(self, modality: str, *needs: str) -> None:
        self.name, self.modality, self.needs = f"fixed_{modality}", modality, needs

    def label(self, batch: Batch) -> list[Any]:
        return [0] * len(batch["__key__"])


def test_an_unknown_labeler_suggests_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="Did you mean 'scene_depth'"):
        labeler("scene_dpeth")


def test_a_labeler_cannot_be_chosen_for_another_modality() -> None:
    with pytest.raises(ValueError, match="makes 'depth', not 'semseg'"):
        LabelingConfig(labelers={"semseg": "scene_depth"})


def test_a_registered_labeler_can_be_chosen_and_its_name_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fourfold.labelers.registry.LABELERS", dict(LABELERS))
    entry = LabelerEntry("depth", None, lambda network, config: Fixed("depth", "rgb"))
    register("flat", entry)
    assert LabelingConfig(labelers={"depth": "flat"}).labelers == {"depth": "flat"}
    with pytest.raises(ValueError, match="'flat'"):
        register("flat", entry)


def test_labelers_run_after_those_whose_labels_they_need() -> None:
    labelers: dict[str, Labeler] = {"a": Fixed("a", "b"), "b": Fixed("b", "c", "rgb"), "c": Fixed("c", "rgb")}
    assert [made.modality for made in in_order(labelers, ("rgb",))] == ["c", "b", "a"]


def test_a_need_that_nobody_meets_is_named() -> None:
    with pytest.raises(ValueError, match=r"'a': \['edges'\]"):
        in_order({"a": Fixed("a", "edges")}, ("rgb",))
