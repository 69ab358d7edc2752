"""Checks of the data between steps."""

from pathlib import Path

import pytest
from kedro.io import CachedDataset, DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node

from fourfold_ops.datasets import FolderDataset, JsonDataset, MetricLogDataset, WorkspaceDataset, WorkSplitDataset
from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.plan.placement import check_placement, local_path, shared_location
from fourfold_ops.kubernetes.plan.settings import Volume, read_settings
from fourfold_ops.kubernetes.plan.steps import plan_steps

PROJECT = Path("/srv/project")
DATA = Volume(mount="data", claim="data")


class Bucket(JsonDataset):
    def __init__(self, url):
        self._path, self.metadata = url, None

    def _describe(self):
        return {"filepath": self._path}


def check(volumes=(DATA,), **entries):
    pipeline = Pipeline(
        [
            node(lambda a: a, "raw", "shards", name="ingest"),
            node(lambda a, b, c, d: a, ["shards", "params:x", "log", "work_split"], "model", name="train", tags="gpu"),
        ]
    )
    settings = read_settings({"image": "x", "allow_tag": True, "tags": {"gpu": {}}}, "kubernetes.yml")
    here = {
        "raw": MemoryDataset(1),
        "params:x": MemoryDataset(1),
        "log": MetricLogDataset(),
        "work_split": WorkSplitDataset(),
        "shards": FolderDataset("/srv/project/data/shards"),
        "model": JsonDataset("data/model.json"),
    }
    steps = plan_steps(pipeline, settings, lambda _: "stage")
    check_placement(steps, DataCatalog({**here, **entries}), volumes, PROJECT)


def test_data_of_remote_steps_must_be_on_a_shared_volume():
    check()
    check(raw=JsonDataset("/elsewhere/raw.json"))


def test_a_memory_dataset_of_a_remote_step_is_refused():
    with pytest.raises(
        UserError, match=r"Nothing was submitted. Catalog entry 'shards', read by the remote step stage/train, is a Memory"
    ):
        check(shards=MemoryDataset())
    with pytest.raises(UserError, match="'model', written by"):
        check(model=CachedDataset(MemoryDataset()))


def test_a_path_outside_the_shared_volumes_is_refused():
    with pytest.raises(
        UserError, match=r"'shards' is stored at /elsewhere/shards, outside all shared volumes \(mounted at: data\)"
    ):
        check(shards=FolderDataset("/elsewhere/shards"))
    with pytest.raises(UserError, match=r"mounted at: none"):
        check(volumes=())


def test_an_output_on_a_read_only_volume_is_refused():
    with pytest.raises(UserError, match=r"'model' is written by stage/train, but the volume at data is read-only"):
        check(volumes=(DATA.model_copy(update={"read_only": True}),))


def test_an_object_store_needs_no_volume():
    check(shards=Bucket("s3://bucket/shards"), model=Bucket("gs://bucket/model.json"))


def test_the_local_path_of_a_dataset_is_found():
    assert local_path(WorkspaceDataset("data/work")) == Path("data/work")
    assert local_path(MetricLogDataset()) is None


def test_a_location_has_one_name_on_all_machines():
    inner = Volume(mount="data/fast", claim="fast", sub_path="mine")
    assert shared_location(PROJECT / "data/fast/x", [DATA, inner], PROJECT) == "claim fast:/mine/x"
    assert shared_location(Path("/opt/project/data/y"), [DATA], Path("/opt/project")) == shared_location(
        PROJECT / "data/y", [DATA], PROJECT
    )
