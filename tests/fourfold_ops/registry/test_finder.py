"""The folder of a model by a name that a user gives."""

import mlflow
import pytest

from fourfold_ops.datasets import FolderDataset
from fourfold_ops.errors import UserError
from fourfold_ops.registry.finder import ModelFinderDataset, find_model


def test_a_folder_or_the_default(tmp_path):
    (tmp_path / "mine").mkdir()
    find = ModelFinderDataset(str(tmp_path)).load()
    assert find(None) == tmp_path and find(str(tmp_path / "mine")) == tmp_path / "mine"
    with pytest.raises(UserError, match="other does not exist"):
        find(str(tmp_path / "other"))


def test_a_version_that_the_registry_does_not_have(tmp_path):
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_registry_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        with pytest.raises(UserError, match="no model models:/fourfold@champion") as error:
            find_model("models:/fourfold@champion", tmp_path)
        assert "kedro models list" in error.value.remedy
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])


def test_an_optional_folder_may_be_absent(tmp_path):
    assert FolderDataset(str(tmp_path / "absent"), optional=True).load() is None
    (tmp_path / "file").touch()
    assert FolderDataset(str(tmp_path), optional=True).load() == tmp_path
