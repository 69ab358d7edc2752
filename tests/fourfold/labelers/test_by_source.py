"""Each of several sources with its own labels: some come with the data, some are made here, some are missing."""

import numpy as np
import pytest

from fourfold.data.missing import Missing
from fourfold.data.shards import ShardSet, finish_split, shard_name, write_columns
from fourfold.labelers import LabelingConfig, integrate_labels, label_shards, train_teachers
from fourfold.metric_log import NullMetricLog


@pytest.fixture
def images(tmp_path):
    """Two images of each of three sources; the depth of the first source comes with it."""
    for source in ("mine", "crawl", "other"):
        pairs = [(f"{source}-{n}", np.full((8, 8, 3), 40 * n, np.uint8)) for n in range(2)]
        write_columns(
            tmp_path / "images", "train", shard_name(0, source), {"rgb": pairs, "caption": [(k, "a") for k, _ in pairs]}
        )
    finish_split(tmp_path / "images", "train", ["rgb", "caption"])
    for folder, names in (("depth", ("mine-0", "mine-1")), ("more", ("other-0",))):
        (tmp_path / folder).mkdir()
        for number, name in enumerate(names):
            np.save(tmp_path / folder / f"{name}.npy", np.full((8, 8), 2.0 + number, np.float32))
    return ShardSet(tmp_path / "images")


def configured(tmp_path, **of) -> LabelingConfig:
    sections = {
        name: None if folder is None else {"kind": "precomputed", "path": str(tmp_path / folder)} for name, folder in of.items()
    }
    return LabelingConfig.model_validate(
        {"labelers": {"depth": {"kind": "by_source", "of": sections}, "normal": "normals_from_depth"}, "max_missing_share": 0.2}
    )


def labeled(images, config, folder):
    teachers = train_teachers(images, images, config, 0, folder / "teachers", NullMetricLog())
    raw = label_shards(images, teachers, config, folder / "raw")
    return integrate_labels(raw, images, config, folder / "labels")


def test_each_source_has_its_own_labels_or_none(images, tmp_path):
    config = configured(tmp_path, mine="depth", crawl=None, other="more")
    labels, report = labeled(images, config, tmp_path / "out")
    depth = {one["__key__"]: one["depth"] for one in labels.iterate("train", ["depth"])}
    assert (depth["mine-0"] == 2).all() and (depth["mine-1"] == 3).all() and (depth["other-0"] == 2).all()
    # A source without a labeler is no failure; a file that is not there is one
    reasons = {key: value.reason for key, value in depth.items() if isinstance(value, Missing)}
    assert reasons.keys() == {"crawl-0", "crawl-1", "other-1"} and reasons["other-1"].startswith(str(tmp_path / "more"))
    assert reasons["crawl-0"] == "filtered out: source crawl has no labeler"
    assert report["train"]["missing/depth"] == 3 and report["train"]["missing/normal"] == 3
    origin = labels.manifest("train", "depth").origin
    assert [part["name"] for part in origin["of"]] == ["precomputed_depth for mine", "precomputed_depth for other"]


def test_a_source_that_is_not_named_stops_the_stage(images, tmp_path):
    with pytest.raises(ValueError, match=r"Unknown source in the labelers of depth: '(crawl|other)'"):
        labeled(images, configured(tmp_path, mine="depth", wrong=None), tmp_path / "out")
