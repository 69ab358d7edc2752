"""A run is skipped only if nothing was touched since the last one."""

import os
import shutil
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from fourfold_ops import handover
from fourfold_ops.last_run import (
    LAST_RUN_FILE,
    LastRun,
    forget_last_run,
    inputs_digest,
    project_digest,
    read_last_run,
    results_digest,
)
from fourfold_ops.tracking import names
from fourfold_ops.unchanged import _runs_of, is_candidate

PARAMETERS = {"a": {"b": 1}}
DVC_YAML = "stages:\n  make:\n    cmd: make\n    deps: [code.py]\n    outs: [data/out]\n"


class Planned:
    """A project that reads one file from outside."""

    def outside(self, parameters):
        return {"source": "source.txt", "supplement": None}


@pytest.fixture
def project(tmp_path):
    for name in ("data/out/deep", "conf/base", "conf/local"):
        (tmp_path / name).mkdir(parents=True)
    files = {"dvc.yaml": DVC_YAML, "dvc.lock": "a: 1\n", "code.py": "1", "conf/base/parameters.yml": "a: 1"}
    for name, text in {**files, "data/out/deep/result": "1"}.items():
        (tmp_path / name).write_text(text)
    time.sleep(0.02)  # times of files are coarser than the clock
    (tmp_path / "source.txt").write_text("1")
    inputs = inputs_digest(tmp_path, Planned(), PARAMETERS)
    digests = project_digest(tmp_path), inputs, results_digest(tmp_path)
    LastRun("0a", *digests, {"out": "make"}, time.time_ns()).write(tmp_path / "data")
    time.sleep(0.02)
    return tmp_path


def test_a_project_that_nobody_touched_is_intact(project):
    last = read_last_run(project / "data")
    assert last is not None and last.is_intact(project, Planned(), PARAMETERS) and last.makers == {"out": "make"}
    (project / "data/other").write_text("no output")
    (project / "notes.md").write_text("no code")
    assert last.is_intact(project, Planned(), PARAMETERS)


def test_changed_parameters_and_sources_are_found(project):
    last = read_last_run(project / "data")
    assert not last.is_intact(project, Planned(), {"a": {"b": 2}})
    (project / "source.txt").write_text("22")
    assert not last.is_intact(project, Planned(), PARAMETERS)


@pytest.mark.parametrize("value", ["weights", "~/weights", "weights/*.bin", "weights/{0..9}.bin", "{}/weights/1.bin"])
def test_changes_at_any_path_that_a_parameter_names_are_found(project, monkeypatch, value):
    monkeypatch.setenv("HOME", str(project))
    (project / "weights").mkdir()
    (project / "weights/1.bin").write_text("1")
    parameters = {"stage": {"list": [{"path": value.format(project) if value.startswith("{}") else value}], "name": "train"}}
    last = replace(read_last_run(project / "data"), inputs=inputs_digest(project, Planned(), parameters))
    assert last.is_intact(project, Planned(), parameters)
    (project / "weights/1.bin").write_text("22")
    assert not last.is_intact(project, Planned(), parameters)


def test_what_is_behind_an_address_is_left_to_the_stages(project):
    parameters = {"source": {"sources": {"one": {"path": "s3://bucket/crawl"}}}}
    last = replace(read_last_run(project / "data"), inputs=inputs_digest(project, Planned(), parameters))
    assert not last.is_intact(project, Planned(), parameters)


@pytest.mark.parametrize("name", ["code.py", "conf/base/parameters.yml", "conf/local/catalog.yml", "dvc.yaml", "dvc.lock"])
def test_changed_code_configuration_and_locks_are_found(project, name):
    last = read_last_run(project / "data")
    (project / name).write_text(DVC_YAML + "# changed\n")
    assert not last.is_intact(project, Planned(), PARAMETERS)


@pytest.mark.parametrize("change", ["content", "same content", "times set back", "replaced folder", "removed"])
def test_touched_results_are_found(project, change):
    last, file = read_last_run(project / "data"), project / "data/out/deep/result"
    before = file.stat()
    if change == "removed":
        file.unlink()
    elif change == "replaced folder":
        shutil.copytree(project / "data/out", project / "data/new", copy_function=shutil.copy2)
        shutil.rmtree(project / "data/out")
        (project / "data/new").rename(project / "data/out")
    else:
        file.write_text("1" if change == "same content" else "2")
    if change == "times set back":
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not last.is_intact(project, Planned(), PARAMETERS)


def test_without_a_whole_run_before_there_is_nothing_to_rely_on(project):
    (project / "data" / LAST_RUN_FILE).write_text('{"run_id": 3}')
    assert read_last_run(project / "data") is None
    forget_last_run(project / "data")
    forget_last_run(project / "data")
    assert read_last_run(project / "data") is None


def test_only_a_whole_run_on_this_machine_may_be_skipped(monkeypatch):
    for name in ("DVC_STAGE", "WORLD_SIZE", handover.STEP, "RANK"):
        monkeypatch.delenv(name, raising=False)
    assert is_candidate({"env": "tiny", "params": {"seed": 1}, "pipelines": [], "tags": None, "is_async": True})
    for option in (
        {"pipelines": ["evaluation"]},
        {"runner": "ThreadRunner"},
        {"only_missing_outputs": True},
        {"tags": ["gpu"]},
    ):
        assert not is_candidate(option)
    monkeypatch.setenv("DVC_STAGE", "dvc.yaml:evaluation")
    assert not is_candidate({})


class Client:
    """An MLflow store with one run and one stage."""

    def __init__(self, status="FINISHED", stage="make", **tags):
        whole = {names.RECORDED: "true", names.SCOPE: names.WHOLE, names.STAGES: "make", **tags}
        info = SimpleNamespace(experiment_id="0", status=status, lifecycle_stage="active")
        self.run = SimpleNamespace(info=info, data=SimpleNamespace(tags=whole))
        self.stages = [SimpleNamespace(info=info, data=SimpleNamespace(tags={"stage": stage}))]

    def get_run(self, run_id):
        from mlflow.exceptions import MlflowException

        if run_id != "0a":
            raise MlflowException("no such run")
        return self.run

    def search_runs(self, *arguments, **named):
        return self.stages


def test_only_a_whole_finished_and_recorded_run_can_be_repeated():
    assert _runs_of(Client(), "0a") is not None
    assert _runs_of(Client(), "0b") is None  # deleted, or of another store
    others = (
        {"status": "FAILED"},
        {"stage": "tune"},
        {names.RECORDED: "false"},
        {names.SCOPE: "partial"},
        {names.OUTDATED: "make"},
    )
    assert [_runs_of(Client(**other), "0a") for other in others] == [None] * 5
