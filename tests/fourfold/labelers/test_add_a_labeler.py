"""The guide docs/guides/add-a-labeler.md is executed: its plug-in is loaded, configured, and labels shards."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fourfold.data.shards import ShardSet, finish_split, write_columns
from fourfold.labelers import Labeler, LabelingConfig, integrate_labels, label_shards, register, train_teachers
from fourfold.labelers.labeling import label_samples
from fourfold.labelers.protocol import Batch
from fourfold.metric_log import NullMetricLog
from fourfold.plugins import load_plugins
from tests.fourfold.guides import plugin_of_guide, yaml_block

GUIDE = "add-a-labeler.md"
BASE = Path(__file__).parents[3] / "conf/base/parameters.yml"


@pytest.fixture
def discs(tmp_path: Path) -> ShardSet:
    """Images of a dark disc on a bright backdrop, of another radius each."""
    y, x = np.mgrid[:32, :32] + 0.5
    images = [np.where(np.hypot(x - 16, y - 16) < radius, 40, 220) for radius in range(5, 13)]
    samples = [(f"disc-{number}", image.astype(np.uint8)[..., None].repeat(3, -1)) for number, image in enumerate(images)]
    captions = [(key, "a disc") for key, _ in samples]
    write_columns(tmp_path / "images", "train", "shard-00000.tar", {"rgb": samples, "caption": captions})
    finish_split(tmp_path / "images", "train", ["rgb", "caption"])
    return ShardSet(tmp_path / "images")


def test_the_labeler_of_the_guide_labels_shards(discs: ShardSet, tmp_path: Path) -> None:
    settings = yaml_block(GUIDE)
    with plugin_of_guide(GUIDE, tmp_path, "foreground"):
        load_plugins(settings["plugins"])
        # 1) The configuration of the guide, merged with that of conf/base, is valid
        base, added = yaml.safe_load(BASE.read_text())["pseudo_labeling"], settings["pseudo_labeling"]
        whole = LabelingConfig(labelers=base["labelers"] | added["labelers"], settings=added["settings"])
        assert whole.labelers["semseg"] == "foreground"
        assert whole.settings["foreground"].sigma == 2
        with pytest.raises(ValueError, match=r"foreground\.sgima: Extra inputs are not permitted"):
            LabelingConfig(labelers=added["labelers"], settings={"foreground": {"sgima": 2}})

        # 2) It labels images: dark discs are objects
        config = LabelingConfig.model_validate(added)
        teachers = train_teachers(discs, discs, config, 0, tmp_path / "teachers", NullMetricLog())
        raw = label_shards(discs, teachers, config, tmp_path / "raw")
        labels, _ = integrate_labels(raw, discs, config, tmp_path / "labels")
    assert labels.class_table("train").names == ("backdrop", "object")
    for index, ids in enumerate(labels.load_column("train", "semseg")):
        assert ids.mean() == pytest.approx(np.pi * (5 + index) ** 2 / 32**2, rel=0.15)  # pixels at the border


def test_another_number_of_labels_than_images_is_an_error_of_the_labeler(discs: ShardSet, tmp_path: Path) -> None:
    class Short(Labeler):
        name, title, modality = "short", "Labels the first image only", "depth"

        def label(self, batch: Batch, output: Any = None) -> list[np.ndarray]:
            return [np.ones((32, 32), np.float16)]

    register(Short)
    config = LabelingConfig(labelers={"depth": "short"})
    teachers = train_teachers(discs, discs, config, 0, tmp_path / "teachers", NullMetricLog())
    with pytest.raises(ValueError, match="Labeler 'short' returned 1 labels for 8 images"):
        label_samples(discs.read("train", ["rgb", "caption"], "shard-00000.tar"), teachers, 8)
