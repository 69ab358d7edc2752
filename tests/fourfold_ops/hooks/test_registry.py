"""The alias of a registered model moves last: after dvc.lock and MLflow, and before the lock on data/ is released."""

import pytest
from kedro.framework.hooks import hook_impl
from kedro.framework.hooks.manager import _create_hook_manager

from fourfold_ops import data_lock
from fourfold_ops.hooks.lock import LockHook
from fourfold_ops.hooks.registry import RegistryHook
from fourfold_ops.hooks.versioning import NotRecordedError
from fourfold_ops.tracking import names
from fourfold_ops.tracking.run import REGISTERED_MODEL, ActiveRun, set_active_run


class Recorder:
    """Stands in for the hooks that record a run: notes the alias at its end, then fails if there is a problem."""

    def __init__(self, client, problem=""):
        self.client, self.problem, self.seen = client, problem, []

    @hook_impl(wrapper=True)
    def after_pipeline_run(self):
        result = yield
        self.seen.append(aliases(self.client))
        if self.problem:
            raise NotRecordedError(self.problem)
        return result


class Closer:
    @hook_impl(trylast=True)
    def after_pipeline_run(self):
        set_active_run(None)


class Client:
    """Notes whether the data folder is locked when an alias moves."""

    def __init__(self, client, folder):
        self._client, self._folder, self.was_locked = client, folder, None

    def __getattr__(self, name):
        return getattr(self._client, name)

    def set_registered_model_alias(self, *arguments):
        self.was_locked = bool(data_lock._held)
        self._client.set_registered_model_alias(*arguments)


def aliases(client):
    return {alias: str(number) for alias, number in client.get_registered_model("echo").aliases.items()}


@pytest.fixture
def registered(shelf):
    """A version that a run has just registered, and the runs of its parent and stage."""
    shelf.add(0.5)
    shelf.client.delete_registered_model_alias("echo", "candidate")
    for tag in (names.MODEL_RUN, names.MODEL_PARENT_RUN):
        shelf.client.delete_model_version_tag("echo", "1", tag)
    parent = shelf.client.create_run(shelf.experiment).info.run_id
    tags = {"mlflow.parentRunId": parent, REGISTERED_MODEL: "models:/echo/1"}
    stage = shelf.client.create_run(shelf.experiment, tags=tags).info.run_id
    shelf.client.create_run(shelf.experiment, tags={"mlflow.parentRunId": parent})  # a stage without a model
    yield shelf, parent, stage
    set_active_run(None)
    data_lock.release(shelf.project)


def end(shelf, active, problem="", handed=None):
    client = Client(shelf.client, shelf.project)
    set_active_run(ActiveRun(client, active))
    lock, recorder = LockHook(), Recorder(shelf.client, problem)
    lock._folder = shelf.project
    data_lock.acquire(shelf.project, "kedro run")
    manager = _create_hook_manager()
    for hook in (Closer(), recorder, RegistryHook(), lock):
        manager.register(hook)
    try:
        manager.hook.after_pipeline_run(run_params={}, run_result={}, pipeline=None, catalog=None)
    finally:
        assert not data_lock._held
    return recorder.seen, client.was_locked


@pytest.mark.parametrize("active", ["parent", "stage"])
def test_the_alias_moves_after_everything_is_recorded_under_the_lock(registered, active):
    shelf, parent, stage = registered
    seen, was_locked = end(shelf, parent if active == "parent" else stage)
    assert seen == [{}] and aliases(shelf.client) == {"candidate": "1"} and was_locked
    tags = shelf.client.get_model_version("echo", "1").tags
    assert (tags[names.MODEL_RUN], tags[names.MODEL_PARENT_RUN]) == (stage, parent)


def test_a_version_that_is_described_keeps_its_record(registered):
    shelf, parent, _ = registered
    shelf.client.set_model_version_tag("echo", "1", names.MODEL_RUN, "a clean run")
    end(shelf, parent)
    assert shelf.client.get_model_version("echo", "1").tags[names.MODEL_RUN] == "a clean run"
    assert aliases(shelf.client) == {"candidate": "1"}


def test_a_run_that_is_not_recorded_moves_no_alias(registered):
    shelf, parent, _ = registered
    before = shelf.client.get_model_version("echo", "1").tags
    with pytest.raises(NotRecordedError):
        end(shelf, parent, problem="the disk is full")
    assert aliases(shelf.client) == {}
    assert shelf.client.get_model_version("echo", "1").tags == before


def test_a_step_of_a_driver_moves_no_alias(registered, monkeypatch):
    shelf, parent, _ = registered
    monkeypatch.setattr("fourfold_ops.handover.received", lambda: object())
    end(shelf, parent)
    assert aliases(shelf.client) == {}


def test_a_run_that_registers_nothing_moves_no_alias(registered):
    shelf, _, _ = registered
    end(shelf, shelf.client.create_run(shelf.experiment).info.run_id)
    assert aliases(shelf.client) == {}
