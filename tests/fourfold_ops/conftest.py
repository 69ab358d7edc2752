"""A miniature Kedro project with three stages, to try the platform on without any science."""

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
import preloaded
from shared import made_once
from shelf import Shelf

from fourfold_ops import data_lock

PYPROJECT = """
[tool.kedro]
package_name = "{package}"
project_name = "miniature"
kedro_init_version = "1.7.0"
source_dir = "."
"""
PARAMETERS = """
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = Field(3, ge=1)
    note: str = ""


class Tuning(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rate: float = 0.5
    fail: bool = False


class Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    seed: int
    num_threads: int = 1
    making: Part
    tuning: Tuning
    judging: Part


def source_files(parameters):
    return {"source": (os.environ.get("MINIATURE_SOURCE"), f"{Path(__file__).parent.name}/cli.py")}
"""
REGISTRY = """
import json
import os
import signal
import time
from pathlib import Path

from kedro.pipeline import Pipeline, node


def make(making, seed, folder):
    (folder / "numbers.json").write_text(json.dumps([seed + i for i in range(making["size"])]))
    return folder


def tune(folder, tuning, log):
    if os.environ.get("MINIATURE_KILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    if tuning["fail"]:
        raise ValueError("The rate is too high. Lower tuning.rate.")
    if os.environ.get("MINIATURE_WAIT"):  # in the node until the test removes the file
        waiting = Path("waiting")
        waiting.touch()
        while waiting.exists():
            time.sleep(0.02)
    numbers = json.loads((folder / "numbers.json").read_text())
    for step, number in enumerate(numbers):
        log.log_metrics({"loss": number * tuning["rate"]}, step=step)
    return {"sum": sum(numbers) * tuning["rate"]}


def judge(tuned, judging):
    return "<html>" + "!" * judging["size"] + str(tuned["sum"]) + "</html>"


def register_pipelines():
    stages = {
        "making": Pipeline([node(make, ["params:making", "params:seed", "made_folder"], "made", name="make_numbers")]),
        "tuning": Pipeline([node(tune, ["made", "params:tuning", "metric_log"], "tuned", name="tune_numbers")]),
        "judging": Pipeline([node(judge, ["tuned", "params:judging"], "report", name="judge_numbers")]),
    }
    return {"__default__": sum(stages.values(), Pipeline([])), **stages}
"""
SETTINGS = """
from fourfold_ops.hooks.parameters import ParametersHook
from fourfold_ops.hooks.location import ErrorLocationHook
from fourfold_ops.hooks.lock import LockHook
from fourfold_ops.hooks.summary import SummaryHook
from fourfold_ops.hooks.tracking import TrackingHook
from fourfold_ops.hooks.versioning import VersioningHook

CHECKS = (ParametersHook("{package}.parameters.Parameters"), ErrorLocationHook())
HOOKS = (*CHECKS, TrackingHook(), VersioningHook("{package}.parameters.source_files"), SummaryHook(), LockHook())
DISABLE_HOOKS_FOR_PLUGINS = ("kedro-telemetry", "kedro-viz")
CONFIG_LOADER_ARGS = {{
    "base_env": "base",
    "default_run_env": "local",
    "merge_strategy": {{"parameters": "soft", "catalog": "soft", "tracking": "soft"}},
    "config_patterns": {{"tracking": ["tracking*"], "promotion": ["promotion*"]}},
}}
"""
CLI = """
import click
from kedro.framework.cli.project import run

from fourfold_ops.cli.failures import with_clear_errors
from fourfold_ops.cli.models import add_models


@click.group()
def cli():
    pass


cli.add_command(with_clear_errors(run), "run")
add_models(cli)
"""
CATALOG = """
made_folder: {type: fourfold_ops.datasets.WorkspaceDataset, path: data/01_made}
made: {type: fourfold_ops.datasets.FolderDataset, path: data/01_made}
tuned: {type: fourfold_ops.datasets.JsonDataset, filepath: data/02_tuned/tuned.json}
report: {type: fourfold_ops.datasets.TextDataset, filepath: data/03_judged/report.html, metadata: {show: Report}}
metric_log: {type: fourfold_ops.datasets.MetricLogDataset}
"""
SUM = """
import json


class Sum:
    def __init__(self, numbers):
        self.numbers = numbers

    @classmethod
    def load(cls, folder):
        return cls(json.loads((folder / "numbers.json").read_text()))

    def predict(self, conditions, targets):
        return {target: [sum(self.numbers)] * len(conditions["text"]) for target in targets}
"""
PUBLISHED = """
registered:
  type: fourfold_ops.registry.registered_model.RegisteredModelDataset
  name: sum
  loader: {package}.model.Sum
  inputs: {{text: str}}
  params: {{targets: [sum]}}
"""
BASE = """
seed: 0
num_threads: 1
making: {size: 3}
tuning: {rate: 0.5, fail: false}
judging: {size: 1}
"""
SMOKE = """
making: {size: 2}
tuning: {rate: 0.25}
judging: {}
"""
TRACKING = "{uri: 'sqlite:///data/mlflow.db', artifacts: data/mlflow_artifacts, experiment: miniature}\n"
_numbers = itertools.count()


class Miniature:
    """The folder of the project, and ways to run it."""

    def __init__(self, folder: Path, package: str) -> None:
        self.folder, self.package = folder, package

    def run(self, **options: Any) -> Any:
        """Run in this process; `env`, `runtime_params` and what `KedroSession.run` takes."""
        from kedro.framework.session import KedroSession
        from kedro.framework.startup import bootstrap_project

        bootstrap_project(self.folder)
        create = {key: options.pop(key) for key in ("env", "runtime_params") if key in options}
        with KedroSession.create(self.folder, save_on_close=False, **create) as session:
            return session.run(**options)

    def command(self, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
        """Run `kedro`, or another program of the environment, as a user does."""
        binaries = Path(sys.executable).parent
        environment = os.environ | {"PATH": f"{binaries}:{os.environ['PATH']}", "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1"}
        if arguments[0] == "kedro":
            return preloaded.run([*arguments], self.folder, environment | changed)
        return subprocess.run(
            [str(binaries / arguments[0]), *arguments[1:]],
            cwd=self.folder,
            env=environment | changed,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def git(self, *arguments: str) -> str:
        """Run git in it, without the user's settings, and return what it prints."""
        environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        author = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
        command = ["git", *author, *arguments]
        done = subprocess.run(command, cwd=self.folder, env=environment, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def client(self) -> Any:
        """Return a client of its MLflow store."""
        import mlflow

        uri = f"sqlite:///{self.folder / 'data/mlflow.db'}"
        return mlflow.MlflowClient(uri, registry_uri=uri)  # by default, that of the last test

    def recorded(self, name: str) -> list[Any]:
        """Return the recorded runs of a stage, or the parents ("parent"), oldest first."""
        client = self.client()
        experiment = client.get_experiment_by_name("miniature").experiment_id
        runs = client.search_runs([experiment], order_by=["attributes.start_time ASC"])
        return [run for run in runs if run.data.tags.get("stage", "parent") == name]

    def write(self, path: str, content: str) -> None:
        """Write a file of the project."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty MLflow store. Creating its tables takes seconds, so it is created once and copied."""
    import mlflow
    from mlflow.store.db import utils

    # For each store, MLflow would read all of its migrations to find the newest version of the tables.
    utils._get_latest_schema_revision = cache(utils._get_latest_schema_revision)

    def make(folder: Path) -> None:
        mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()

    return made_once(tmp_path_factory, "store", make) / "mlflow.db"


@pytest.fixture(scope="session")
def make_miniature(empty_store: Path) -> Callable[[Path], Miniature]:
    """Return a function that writes a new miniature project into a folder."""

    def make(folder: Path) -> Miniature:
        package = f"miniature_{os.getpid()}_{next(_numbers)}"
        project = Miniature(folder, package)
        project.write("pyproject.toml", PYPROJECT.format(package=package))
        files = {"__init__": "", "parameters": PARAMETERS, "pipeline_registry": REGISTRY, "cli": CLI}
        for name, content in {**files, "settings": SETTINGS.format(package=package)}.items():
            project.write(f"{package}/{name}.py", content)
        for path, content in {
            "base/catalog": CATALOG,
            "base/parameters": BASE,
            "base/tracking": TRACKING,
            "smoke/parameters": SMOKE,
        }.items():
            project.write(f"conf/{path}.yml", content)
        for name in ("conf/local", "data"):
            (project.folder / name).mkdir()
        shutil.copy(empty_store, project.folder / "data/mlflow.db")
        return project

    return make


@pytest.fixture(autouse=True)
def locks_of_one_test() -> Iterator[None]:
    """Give back the locks of runs that a test left unfinished, which would end with their process."""
    yield
    for path in list(data_lock._held):
        data_lock.release(path.parent)


@pytest.fixture
def miniature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_miniature: Callable[[Path], Miniature]) -> Miniature:
    """Return a new miniature project in the current folder, whose name contains a space."""
    project = make_miniature(tmp_path / "a project")
    monkeypatch.chdir(project.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return project


@pytest.fixture
def publishing_miniature(miniature: Miniature, monkeypatch: pytest.MonkeyPatch) -> Miniature:
    """Return a miniature project that registers its numbers as the model `sum`, and makes it the candidate."""
    folder = miniature.folder / miniature.package
    publish = 'node(lambda folder, report: folder, ["made", "report"], "registered", name="publish")'
    changes = {
        "pipeline_registry": ('name="judge_numbers")]', f'name="judge_numbers"), {publish}]'),
        "settings": ("SummaryHook(), LockHook()", "RegistryHook(), SummaryHook(), LockHook()"),
    }
    for name, (old, new) in changes.items():
        text = (folder / f"{name}.py").read_text()
        assert old in text
        (folder / f"{name}.py").write_text(text.replace(old, new))
    settings = folder / "settings.py"
    settings.write_text("from fourfold_ops.hooks.registry import RegistryHook\n" + settings.read_text())
    miniature.write(f"{miniature.package}/model.py", SUM)
    catalog = miniature.folder / "conf/base/catalog.yml"
    catalog.write_text(catalog.read_text() + PUBLISHED.format(package=miniature.package))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # restored at the end: a run sets it
    return miniature


@pytest.fixture
def shelf(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """Return a registry without models, beside a git repository."""
    import mlflow

    (tmp_path / "project").mkdir()
    shutil.copy(empty_store, tmp_path / "project/mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for variable in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(variable)
    uri = f"sqlite:///{tmp_path / 'project/mlflow.db'}"
    return Shelf(tmp_path / "project", mlflow.MlflowClient(uri, registry_uri=uri))
